"""A study answers before it trains: folders of another config, and entries that --only leaves out."""

import pytest

from polarjax.core import ConfigError

from .conftest import POLAR
from .test_conduct import FAST, SLOW, starts

TIMED = ("timed", POLAR, {"optim.eps": 0.5e-8}, {"as_long_as": "fast"})


def test_a_folder_with_runs_of_another_config_is_answered_once_with_the_values_that_differ(
    make_study, tmp_path
):
    make_study([SLOW, ("fast", POLAR, FAST)])()
    before = starts(tmp_path / "study")
    run = make_study([SLOW, ("fast", POLAR, FAST | {"optim.b2": 0.9}), ("new", POLAR, {})])
    message = (
        r"study holds runs of another config: config.optim.clip_norm is 5.0 there and 1.0 here \(slow, fast\); "
        r"config.optim.b2 is 0.95 there and 0.9 here \(fast\). .* another --workdir, or set the values back"
    )
    with pytest.raises(ConfigError, match=message) as wrong:
        run(overrides={"optim.clip_norm": "1.0"})
    assert "allow-config-change" not in str(wrong.value)
    assert starts(tmp_path / "study") == before
    assert make_study([SLOW])()["failures"] == []


@pytest.mark.parametrize("name", ["train.eval_every", "train.save_every", "train.keep_best"])
def test_intervals_that_choose_the_best_checkpoint_are_part_of_the_config(make_study, name):
    make_study([SLOW])(seeds="1")
    with pytest.raises(ConfigError, match=rf"config.{name} is \d+ there and 5 here"):
        make_study([SLOW])(seeds="1", overrides={name: "5"})


def test_values_that_change_no_number_leave_a_run_finished_and_a_floor_is_added_to_it(make_study, tmp_path):
    make_study([SLOW])(seeds="1")
    make_study([SLOW])(seeds="1", overrides={"train.log_every": "5", "train.watchdog_minutes": "1.0"})
    assert starts(tmp_path / "study") == {"slow/seed0": 1}
    summary = make_study([SLOW])(seeds="1", overrides={"train.floor_steps": "7"})
    assert (summary["entries"][0]["seeds"], summary["failures"]) == ([0], [])
    assert starts(tmp_path / "study") == {"slow/seed0": 2}
    with pytest.raises(ConfigError, match=r"config.train.floor_steps is 7 there and 9 here"):
        make_study([SLOW])(seeds="1", overrides={"train.floor_steps": "9"})


def test_a_run_that_was_never_saved_is_trained_with_the_config_as_it_is_now(make_study, tmp_path):
    make_study([("slow", POLAR, {"optim.clip_norm": 7.0})])(seeds="1")
    assert make_study([SLOW])(seeds="1")["failures"] == []
    assert starts(tmp_path / "study") == {"slow/seed0": 2}


def test_a_short_run_that_is_timed_belongs_to_the_config_too(make_study, tmp_path):
    make_study([SLOW, ("fast", POLAR, FAST), TIMED])(seeds="1")
    (tmp_path / "study/timed/seed0/num_steps.json").unlink()
    with pytest.raises(ConfigError, match=r"config.optim.b1 is 0.9 there and 0.8 here \(timed\)"):
        make_study([SLOW, ("fast", POLAR, FAST), (*TIMED[:2], TIMED[2] | {"optim.b1": 0.8}, TIMED[3])])(
            seeds="1"
        )


def test_an_entry_is_not_trained_without_the_one_that_it_lasts_as_long_as(make_study, tmp_path):
    pre = ("pre", POLAR, {"optim.clip_norm": 2.0})
    run = make_study([SLOW, pre, ("fast", POLAR, FAST, {"init_from": "pre"}), TIMED])
    message = (
        r"'timed' lasts as long as 'fast', which --only leaves out .* seed 0, 1; .* --only pre,fast,timed$"
    )
    with pytest.raises(ConfigError, match=message):
        run(only="timed")
    assert starts(tmp_path) == {}
    run(only="pre,fast")
    assert run(only="timed")["failures"] == []
    (tmp_path / "study/fast/seed0/eval").rename(tmp_path / "elsewhere")
    assert run(only="timed")["failures"] == []
