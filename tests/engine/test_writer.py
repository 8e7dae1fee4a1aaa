import json

import pytest

from polarjax.core import CheckpointError, NumericError
from polarjax.engine import compilation
from polarjax.engine.tally import Tally
from polarjax.engine.writer import Writer


def open_writer(workdir, start=0, **kwargs):
    return Writer(workdir, start=start, total=10, **{"primary": True, **kwargs})


def test_lines_after_the_restored_step_and_a_line_cut_short_are_dropped(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 2, "train/loss": 1.5}\n{"step": 4, "train/loss": 1.0}\n{"step": 6, "tra')
    with open_writer(tmp_path, start=2) as writer:
        writer.write(4, {"train/loss": 0.5, "eval/nothing": float("nan")})
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"step": 2, "train/loss": 1.5},
        {"step": 4, "train/loss": 0.5},
    ]


def test_only_the_first_process_writes(tmp_path, capsys):
    with open_writer(tmp_path, primary=False) as writer:
        writer.say("text")
        writer.advance(1)
        writer.write(1, {"train/loss": 0.5})
    assert not list(tmp_path.iterdir()) and capsys.readouterr().out == ""


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl: the log cannot be written"):
        open_writer(tmp_path)


def test_the_plain_line_shows_loss_speed_and_the_time_left(tmp_path, capsys):
    with open_writer(tmp_path) as writer:
        writer.write(1, {"train/loss": 0.5, "time/samples_per_second": 10.0})
        writer.write(2, {"train/loss": 0.25, "time/samples_per_second": 10.0})
    first, second = capsys.readouterr().out.splitlines()
    assert first == "step 1/10  train/loss 0.5  time/samples_per_second 10"
    assert second.startswith("step 2/10  train/loss 0.25") and "ETA 0:00:0" in second


def test_a_terminal_gets_a_progress_bar_with_speed_and_time_left(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    with open_writer(tmp_path) as writer:
        writer.advance(1)
        writer.write(1, {"train/loss": 0.5, "time/samples_per_second": 1234.0})
        writer.say("a [line] above")
    printed = capsys.readouterr().out
    assert "1,234 samples/s" in printed and "ETA" in printed and "a [line] above" in printed


@pytest.mark.parametrize(("seconds", "told"), [(300.0, True), (3.0, False)])
def test_a_run_that_would_take_a_year_here_is_told_at_its_third_step(
    seconds, told, tmp_path, capsys, monkeypatch
):
    with Writer(tmp_path, start=100, total=102400, primary=True) as writer:
        for i, step in enumerate((101, 102, 103, 104)):
            monkeypatch.setattr("polarjax.engine.writer.time.monotonic", lambda i=i: 1000.0 + i * seconds)
            writer.advance(step)
            printed = capsys.readouterr().out
            assert ("a step takes 300 s here, and the run 355 days" in printed) == (told and step == 103)


def test_the_tally_survives_json_and_averages_finite_steps_only():
    tally = Tally()
    tally.add(1, {"train/loss": 0.1, "clipped": True, "finite": True}, max_skipped=2)
    tally.add(2, {"train/loss": float("nan"), "clipped": False, "finite": False}, max_skipped=2)
    tally = Tally(json.loads(json.dumps(tally.to_dict())))
    tally.add(3, {"train/loss": 0.2, "clipped": False, "finite": True}, max_skipped=2)
    assert tally.take() == {
        "train/loss": (0.1 + 0.2) / 2,
        "train/clipped_share": 0.5,
        "train/skipped_steps": 1,
        "train/loss_spikes": 0,
    }
    assert tally.take() == {"train/skipped_steps": 1, "train/loss_spikes": 0}
    tally.add(4, {"finite": False}, max_skipped=2)
    with pytest.raises(NumericError, match=r"2 steps in a row, up to step 5; the last good step is 3"):
        tally.add(5, {"finite": False}, max_skipped=2)


def test_the_compilation_cache_is_quiet_where_it_cannot_be_written(tmp_path, monkeypatch):
    set_to = []
    monkeypatch.setattr("jax.config.update", lambda name, value: set_to.append((name, value)))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation.enable_compilation_cache() == tmp_path / "polarjax" / "jax"
    assert set_to == [("jax_compilation_cache_dir", str(tmp_path / "polarjax" / "jax"))]
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilation.enable_compilation_cache() is None
    assert len(set_to) == 1
