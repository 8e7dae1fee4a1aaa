"""What a report says of self-supervision: the numbers of its evaluations, the untrained model, the alarm."""

import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from polarjax.reports import self_supervision, self_supervision_page, table, words

from . import tiny_jepa


@pytest.fixture(scope="module")
def measured():
    """A run, its system, its data and what is said of it on the test tier, whose last batch is filled up."""
    data = tiny_jepa.make_data()
    run, system = tiny_jepa.make_run(tiny_jepa.make_config(), data)
    return run, system, data, self_supervision.measure_run(run, system, data, 2)


def made_report(deviation=0.8, excess=0.02, **changes):
    """Returns the fields that words and page read, of a run without units."""
    numbers = {"loss": 0.25, "loss_other_gaze": None if excess is None else 0.25 + excess}
    numbers["other_gaze_excess"] = excess
    spread = {"deviation": deviation, "cosine": 0.3, "rank": 5.5, "coding_rate": 9.75, "rate": 0.4}
    for name, value in spread.items():
        numbers[name] = {"mean": value, "levels": [value, value]}
    untrained = numbers | {"loss": 1.125}
    found = {
        "width": 32,
        "trained": numbers,
        "untrained": untrained,
        "collapsed": deviation < 0.1,
        "probes": None,
    }
    report = {"tier": "test", "units": 0, "checkpoint_step": 4, "checkpoint_chosen_by": "latest"}
    bits = {"mean": None, "median": None, "interval": None}
    constants = {"dynamics": None, "constants": {}, "constants_start": {}}
    report |= {"bits_per_spike": bits, "units_left_out": [], **constants}
    return report | {"jepa": found} | changes


def printed(report):
    stream = io.StringIO()
    table.print_table(report, Console(width=80, file=stream))
    return stream.getvalue()


def test_the_numbers_are_those_of_an_evaluation_of_the_tier(measured):
    run, system, data, found = measured
    state = self_supervision.states_of(run, system, data)["trained"]
    requests = list(data.evaluation(2, 4))
    assert len(requests) == 3
    eval_sums = jax.jit(lambda batch: system.eval_sums(state, batch))
    batches = [jax.tree.map(jnp.asarray, data.fetch(data.resident, request)) for request in requests]
    sums = [jax.device_get(eval_sums(batch)) for batch in batches]
    metrics = system.eval_metrics(jax.tree.map(lambda *values: np.sum(values), *sums))
    for name in ("loss", "loss_other_gaze"):
        assert found["trained"][name] == pytest.approx(metrics[f"jepa/{name}"], rel=1e-4)
    excess = metrics["jepa/loss_other_gaze"] - metrics["jepa/loss"]
    assert found["trained"]["other_gaze_excess"] == pytest.approx(excess, abs=1e-5)
    for name in self_supervision.SPREAD:
        assert found["trained"][name]["mean"] == pytest.approx(metrics[f"jepa/{name}"], rel=1e-4)
        assert found["trained"][name]["levels"] == [pytest.approx(metrics[f"jepa/{name}_0"], rel=1e-4)]
    assert found["trained"]["loss"] != found["untrained"]["loss"]
    assert json.loads(json.dumps(found)) == found


def test_the_untrained_model_is_that_of_the_seed_before_the_first_step(measured):
    run, system, data, _ = measured
    states = self_supervision.states_of(run, system, data)
    batch = jax.tree.map(jnp.asarray, data.fetch(data.resident, data.train(0)))
    first = jax.jit(system.init)(jax.random.split(jax.random.key(run.config.seed))[0], batch)
    for left, right in (
        (first["params"], states["untrained"].params),
        (run.params, states["trained"].params),
    ):
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), left, right)
    jax.tree.map(np.testing.assert_array_equal, run.target_params, states["trained"].target_params)


def test_at_most_so_many_batches_are_watched(measured, monkeypatch):
    run, _, data, _ = measured
    monkeypatch.setattr(self_supervision, "MOST_BATCHES", 1)
    seen = []

    def watch(resident, request):
        seen.append(request)
        return {
            "batches": np.ones(()),
            "loss": np.zeros(()),
            **dict.fromkeys(self_supervision.SPREAD, np.ones(())),
        }

    self_supervision.watch_tier(watch, data, 2, run.config)
    assert len(seen) == 1


def test_a_run_without_self_supervision_and_a_tier_without_segments_have_no_numbers(measured):
    run, system, data, _ = measured
    config = run.config.copy_and_resolve_references()
    assert self_supervision.is_self_supervised(config)
    assert self_supervision.measure_run(run, system, data, 1) is None
    del config.model["jepa"]
    assert not self_supervision.is_self_supervised(config)
    assert self_supervision.measure_run(run._replace(config=config), system, data, 2) is None


def test_codes_that_are_one_point_raise_the_alarm_in_numbers_page_and_table(measured):
    run, system, data, found = measured
    assert found["collapsed"] is False
    params = jax.tree.map(np.copy, run.params)
    for name, leaf in params["jepa"].items():
        if name.startswith("projector"):
            leaf["out"]["kernel"][:] = 0
            leaf["out"]["bias"][:] = 1
    collapsed = self_supervision.measure_run(run._replace(params=params), system, data, 2)
    assert collapsed["collapsed"] is True
    assert collapsed["trained"]["deviation"]["mean"] < 1e-3
    report = made_report(jepa=collapsed)
    assert (
        printed(report).count(
            "ALARM: the codes have collapsed: their deviation at level 0 is 0.000, below 0.1"
        )
        == 1
    )
    assert words.headline(report).startswith("No session has units: nothing is said of spikes. ALARM: ")
    page = "".join(self_supervision_page.sections(report, {}))
    assert "<h2>Self-supervision: the codes have collapsed</h2><p>ALARM: " in page
    for text in (printed(made_report()), "".join(self_supervision_page.sections(made_report(), {}))):
        assert "ALARM" not in text


def test_the_page_has_every_number_beside_that_of_the_untrained_model_and_the_course_of_training():
    curves = {
        name: [(5, 1.0), (10, 0.5)] for name in ("train/loss_jepa", "jepa/loss", "jepa/rank_1", "other")
    }
    page = "".join(self_supervision_page.sections(made_report(), curves))
    assert (
        "<td>loss: 0 predicted, 1 - √cosine by one code for all</td><td>0.250</td><td>1.125</td><td></td><td></td>"
        in page
    )
    assert "<td>.. higher by; 0 where the gaze is of no use</td><td>0.020</td>" in page
    assert "32 at most, 1 collapsed</td><td>5.50</td><td>5.50</td><td>5.50</td><td>5.50</td>" in page
    assert "nats</td><td>9.75</td><td>9.75</td><td>9.75</td><td>9.75</td>" in page
    assert page.count("data:image/png;base64,") == 1
    assert self_supervision_page._panels(curves, 2) == {
        "loss": {"training": curves["train/loss_jepa"], "validation": curves["jepa/loss"]},
        "deviation": {},
        "rank": {"level 1": curves["jepa/rank_1"]},
    }


def test_the_page_has_a_line_for_each_probe_and_none_for_a_tier_that_has_no_probes():
    scores = {"trained": 0.75, "untrained": 0.5}
    r2 = dict.fromkeys(("code", "summaries"), dict.fromkeys(("gaze_dx", "gaze_dy", "scene"), scores))
    counts = {"fitted": 1024, "held_out": 200, "tested": 512}
    report = made_report()
    report["jepa"]["probes"] = {"delta_frames": 5, "segments": counts, "r2": r2}
    page = "".join(self_supervision_page.sections(report, {}))
    assert page.count("<td>0.75</td><td>0.50</td>") == 6
    assert "gaze in 5 frames, upwards from the summaries on 3 × 3 places" in page
    assert "fitted on 1,024 training segments, on 512 segments of the test trials" in page
    assert "Linear probes" not in "".join(self_supervision_page.sections(made_report(), {}))


def test_without_self_supervision_nothing_is_said_of_it_and_without_gaze_nothing_of_gaze():
    report = made_report()
    del report["jepa"]
    assert words.self_supervision(report) == self_supervision_page.sections(report, {}) == []
    assert self_supervision_page.tiles(report) == {}
    blind = made_report(excess=None)
    assert "loss 0.250 (1.125); codes: deviation 0.80 (0.80)" in printed(blind)
    assert "+0.020 with the gaze of other examples" in printed(made_report())
    assert "gaze of other examples</td>" not in "".join(self_supervision_page.sections(blind, {}))
