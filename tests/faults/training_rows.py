"""Numbers and settings of training that are wrong: rows of (id, action, exit code, message)."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from configs import polar
from polarjax import losses, systems
from polarjax.engine import checkpoints, compilation, memory, sharding
from polarjax.engine.state import TrainState, flatten
from polarjax.engine.tally import SKIPPED_STEPS, SPIKE_STEPS, Tally
from polarjax.models import jepa_objective
from polarjax.ops import gaze, polar_decomposition
from polarjax.reports import self_supervision, words
from polarjax.reports.runs import Run
from tests.engine import tiny_polar, toy
from tests.engine.runs import assert_same_bits, lines_of, mesh_of
from tests.reports import tiny_jepa


def skipped_lines(place):
    lines = (place.folder / "run" / SKIPPED_STEPS).read_text().splitlines()
    return [json.loads(line) for line in lines]


def skipped_once(place):
    data = toy.make_data(not_finite=(4,))
    for step in (4, 5):
        place.stop(step, data=data)
    before, after = (checkpoints.restore(place.folder / "run", step)[0] for step in (4, 5))
    assert (int(before.step), int(after.step)) == (4, 5)
    assert_same_bits(after.replace(step=before.step), before)
    segments = {"toy": data.train(4)["start"].tolist()}
    assert skipped_lines(place) == [{"step": 5, "last_good": 4, "segments": segments}]
    return place.printed()


def never_finite_again(place):
    data = toy.make_data(not_finite=range(6, 99), sessions=("a", "b"))
    try:
        return place.run(data=data, **{"train.save_every": 1})
    finally:
        leaves = flatten(checkpoints.restore(place.folder / "run")[0]).values()
        assert all(np.isfinite(leaf).all() for leaf in leaves)
        lines = skipped_lines(place)
        assert [(line["step"], line["last_good"]) for line in lines] == [(7, 6), (8, 6), (9, 6)]
        assert lines[2]["segments"] == {
            name: data.train(8)["start"][i::2].tolist() for i, name in enumerate("ab")
        }


def not_kept(place):
    (place.folder / "run" / SKIPPED_STEPS).mkdir(parents=True)
    return place.run(data=toy.make_data(not_finite=(4,)))


def spike(place):
    tally = Tally()
    for step in range(SPIKE_STEPS + 1):
        loss = 9.0 if step == SPIKE_STEPS else 1.0 + step % 2
        tally.add(step, {"train/loss": loss, "clipped": False, "finite": True}, max_skipped=2)
        tally = Tally(json.loads(json.dumps(tally.to_dict())))  # as a checkpoint keeps it
    return tally.take()["train/loss_spikes"]


def large_log_rate(place):
    z = jnp.asarray([[1e4, -1e4, 89.0]])
    value, slope = jax.value_and_grad(losses.poisson_nll)(z, jnp.ones_like(z), jnp.ones_like(z))
    return bool(jnp.isfinite(value)) and bool(jnp.isfinite(slope).all())


def model(place, **kwargs):
    built = place.build(place.write())
    config = polar.get_config("quick")
    small = {"n_levels": 1, "n_pairs": 2, "kernel_size": 3, "code_width": 4, "finest_stride": 2}
    with config.ignore_type():
        config.model.kwargs = {**small, **kwargs}
    system = systems.build(config, built.info)
    return jax.eval_shape(system.init, jax.random.key(0), built.fetch(built.resident, built.train(0))), system


def slow_average(place):
    told = place.warnings(systems.polar.LOGGER)
    for alpha in (0.9995, 0.9999):
        config = tiny_polar.make_config()
        config.model.kwargs.update(alpha_slow=alpha)
        tiny_polar.make_system(config)
    return "\n".join(told)


def rates_of_any_parameter(place):
    variables, system = model(place)
    lowest = jax.tree.map(lambda leaf: jnp.full(leaf.shape, -50.0, leaf.dtype), variables["params"])
    taus = [value for name, value in system.constants(lowest).items() if "tau" in name]
    return len(taus) >= 2 and all(np.all(np.asarray(tau) > 0) for tau in taus)


def gradients_at_rest(place):
    def speed(velocity):
        return gaze.safe_speed(velocity).sum()

    def energy(pair):
        return sum(part.sum() for part in polar_decomposition.decompose(pair[0], pair[1]))

    still, blank = jax.grad(speed)(jnp.zeros((3, 2))), jax.grad(energy)(jnp.zeros((2, 4)))
    return bool(jnp.isfinite(still).all()) and bool(jnp.isfinite(blank).all())


def too_large(place):
    sizes = type("Sizes", (), dict.fromkeys(("argument_size_in_bytes", "output_size_in_bytes"), 10**10))
    sizes.temp_size_in_bytes = sizes.alias_size_in_bytes = 0
    compiled = type("Program", (), {"memory_analysis": lambda self: sizes})()
    device = type("Device", (), {"device_kind": "small", "memory_stats": lambda self: {"bytes_limit": 10**9}})
    return memory.check_memory(compiled, device(), 384)


def exhausted(place):
    with memory.memory_errors(384):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes")


def compiled_programs(place):
    place.run()
    return [line["time/compiled_programs"] for line in lines_of(place.folder / "run")][3:]


def programs_without_end(place):
    system = toy.make_system()

    def constants(params):
        jax.jit(lambda x: x + 1)(params["core"]["bias"])
        return system.constants(params)

    return place.run(system=system._replace(constants=constants), **{"train.num_steps": 24})


def closed_cache(place):
    place.monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (place.folder / "file").write_text("")
    place.monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "file"))
    return compilation.enable_compilation_cache(), place.printed()


def collapsed(place):
    """Codes that are one point at the second of two levels."""
    spread = jax.random.normal(jax.random.key(0), (4, 4, 4, 6))

    def watch_codes(objective, state, batch):
        numbers = jepa_objective.watch("code", [spread, jnp.ones_like(spread) + 1e-3 * spread])
        one = {"batches": jnp.ones(()), "loss": jnp.zeros(())}
        return one | {name.removeprefix("code/"): value for name, value in numbers.items()}

    data = tiny_jepa.make_data()
    run = Run(place.folder, 4, "latest", tiny_jepa.make_config(), data.info, {}, {}, None)
    alike = dict.fromkeys(
        ("trained", "untrained"), TrainState(jnp.zeros((), int), {}, None, {}, {}, jnp.zeros(2))
    )
    place.monkeypatch.setattr(self_supervision, "states_of", lambda *arguments: alike)
    place.monkeypatch.setattr(self_supervision, "objective_of", lambda run: None)
    place.monkeypatch.setattr(self_supervision.jepa_objective, "watch_codes", watch_codes)
    place.monkeypatch.setattr(self_supervision.probes, "probe_run", lambda *arguments: None)
    system = tiny_polar.make_system(run.config)
    return words.alarm(self_supervision.measure_run(run, system, data, 2))


def restarted(place):
    place.run()
    whole = place.state
    place.folder = place.folder / "again"
    place.stop(7)
    printed = place.run()
    assert_same_bits(place.state, whole)
    return printed


def one_device(place):
    place.run()
    four, one = place.state, mesh_of(1)
    place.monkeypatch.setattr(sharding, "make_mesh", lambda micro_batches: one)
    place.folder = place.folder / "one"
    place.run()
    assert_same_bits(place.state, four)
    return len(four.step.sharding.device_set), len(place.state.step.sharding.device_set)


def low_precision(place):
    halves = jnp.full((2, 3), 0.5, jnp.bfloat16)
    return {str(part.dtype) for part in polar_decomposition.decompose(halves, halves)}


ROWS = [
    (
        "T1",
        skipped_once,
        0,
        r"step 5: the loss or its gradient is not finite, nothing was updated \(1 in a row\); its segments begin at "
        r"frames (\d+, ){2}\d+ \.\. of toy; all of them are in .*run/skipped_steps\.jsonl\n",
    ),
    (
        "T1 not kept",
        not_kept,
        0,
        r"skipped_steps\.jsonl cannot be written \(Is a directory\), free .*step 12/12",
    ),
    (
        "T2",
        never_finite_again,
        5,
        r"3 steps in a row, up to step 9; the last good step is 6 and every checkpoint is finite\. "
        r"skipped_steps\.jsonl in the work directory has their segments\. Usual causes: .* "
        r"Lower the rate and continue with --allow-config-change .* begin anew in another --workdir$",
    ),
    ("T3", spike, 0, "^1$"),
    ("T4", large_log_rate, 0, "True"),
    ("T5", rates_of_any_parameter, 0, "True"),
    (
        "T6",
        lambda at: model(at, alpha_slow=1.0),
        2,
        r"config\.model\.kwargs\.alpha_slow is 1\.0; allowed are numbers between 0 and 1",
    ),
    (
        "T6 slow",
        slow_average,
        0,
        r"^config\.model\.kwargs\.alpha_slow is 0\.9999: this average remembers 9,999 frames, .* 0\.9995 or below$",
    ),
    ("T7 T8", gradients_at_rest, 0, "True"),
    (
        "T9",
        collapsed,
        0,
        r"ALARM: the codes have collapsed: their deviation at level 1 is 0\.00\d, below 0\.1",
    ),
    ("T13", too_large, 2, r"batch_size = 384 needs 20\.00 GB and small has 1\.00 GB; lower config\.data"),
    ("T13 run", exhausted, 2, r"batch_size = 384 does not fit the device \(RESOURCE_EXHAUSTED.*lower"),
    ("T14", compiled_programs, 0, r"^\[0, 0, 0\]$"),
    (
        "T14 late",
        programs_without_end,
        0,
        r"step 16/24[^\n]*\nwarning: 3 programs were compiled after the first 10 steps, [^\n]* the same\nstep 18",
    ),
    (
        "T15",
        closed_cache,
        0,
        r"^\(None, 'warning: compiled programs are not kept, \S+/file/polarjax/jax cannot be written \(Not a "
        r"directory\); the run goes on, and the next one compiles again: set XDG_CACHE_HOME to a folder "
        r"that you may write\\n'\)$",
    ),
    ("T16", restarted, 0, "continuing from step 7"),
    ("T17", one_device, 0, r"^\(4, 1\)$"),
    ("T18", low_precision, 0, r"^\{'float32'\}$"),
]
