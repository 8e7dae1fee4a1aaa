"""What a report says of time constants is what they are: a memory, a relaxation within a frame, or nothing."""

import pytest

from polarjax.reports import evaluate, words

from .fabricated import save_checkpoint

RATES = {"temporal/lambda_fix": 45.0, "temporal/tau_fix_ms": 22.2}
BOTH = RATES | {"temporal/lambda_sac": 90.0, "temporal/tau_sac_ms": 11.1}
AVERAGE = {"temporal/alpha_slow": 0.95, "temporal/tau_slow_ms": 162.5}


def make_report(dynamics, constants):
    nothing = {"tier": "test", "units": 0, "bits_per_spike": {"mean": None}}
    return nothing | {"dynamics": dynamics, "constants": constants, "constants_start": constants}


@pytest.mark.parametrize(
    ("dynamics", "constants", "said"),
    [
        ("recurrent", BOTH, " Amplitude memory: 22 ms in fixation, 11 ms in saccades."),
        ("recurrent", RATES, " Amplitude memory: 22 ms in fixation."),
        (
            "framewise",
            BOTH,
            " Amplitudes remember no frame before; within a frame they relax at 45/s in fixation, 90/s in saccades.",
        ),
        ("framewise", RATES, " Amplitudes remember no frame before; within a frame they relax at 45/s in fixation."),
        ("none", AVERAGE, ""),
        (None, {}, ""),
    ],
)  # fmt: skip
def test_the_headline_says_what_amplitudes_remember(dynamics, constants, said):
    text = words.headline(make_report(dynamics, constants))
    assert text == f"No session has units: nothing is said of spikes.{said}"


def test_the_rates_of_single_frames_have_no_memory_and_averages_over_frames_have_theirs():
    rows = words.constants(make_report("framewise", BOTH | AVERAGE))
    assert [(row[0], row[-1]) for row in rows] == [
        ("relaxation in fixation", "none"),
        ("relaxation in saccades", "none"),
        ("slow average, decay", "162 ms"),
    ]
    assert [row[-1] for row in words.constants(make_report("recurrent", BOTH))] == ["22 ms", "11 ms"]


def test_the_page_of_a_framewise_model_claims_no_memory_of_amplitudes(tmp_path, tiny_run, use_tiny_system):
    config = tiny_run.config.copy_and_resolve_references()
    config.model = {"kwargs": {"dynamics": "framewise"}}
    save_checkpoint(tmp_path / "run", config, tiny_run.data.info, tiny_run.params)
    assert evaluate.write_report(tmp_path / "run")["dynamics"] == "framewise"
    page = (tmp_path / "run/eval/30/report.html").read_text()
    assert "Amplitudes remember no frame before" in page
    assert "Amplitude memory" not in page
