"""Numbers and settings of training that are wrong: rows of (id, action, exit code, message)."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import polar
from polarjax import losses, systems
from polarjax.engine import compilation, memory, sharding
from polarjax.engine.state import flatten
from polarjax.engine.tally import SPIKE_STEPS, Tally
from polarjax.ops import gaze, polar_decomposition
from tests.engine import toy
from tests.engine.runs import assert_same_bits, lines_of, mesh_of


def spike(place):
    tally = Tally()
    for step in range(SPIKE_STEPS + 1):
        loss = 9.0 if step == SPIKE_STEPS else 1.0 + step % 2
        tally.add(step, {"train/loss": loss, "clipped": False, "finite": True}, max_skipped=2)
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


def closed_cache(place):
    place.monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    (place.folder / "file").write_text("")
    place.monkeypatch.setenv("XDG_CACHE_HOME", str(place.folder / "file"))
    return compilation.enable_compilation_cache(), place.printed()


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
    four = flatten(place.state.params)
    one = mesh_of(1)
    place.monkeypatch.setattr(sharding, "make_mesh", lambda micro_batches: one)
    place.folder = place.folder / "one"
    place.run()
    pairs = zip(flatten(place.state.params).values(), four.values(), strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs) < 1e-6


def two_processes(place):
    place.monkeypatch.setattr(jax, "process_count", lambda: 2)
    return place.run(**{"optim.micro_batches": 6})


def low_precision(place):
    halves = jnp.full((2, 3), 0.5, jnp.bfloat16)
    return {str(part.dtype) for part in polar_decomposition.decompose(halves, halves)}


def option(name, value):
    return lambda at: at.run(**{name: value})


def groups(rate):
    group = {"learning_rate": rate, "weight_decay": 0.0}
    return option("optim.groups", {"core": group, "readout": group})


ROWS = [
    (
        "T1",
        lambda at: at.run(data=toy.make_data(not_finite=(4,))),
        0,
        r"step 5: the loss or its gradient is not finite, nothing was updated \(1 in a row\)",
    ),
    (
        "T2",
        lambda at: at.run(data=toy.make_data(not_finite=range(6, 99))),
        5,
        r"3 steps in a row, up to step 9; the last good step is 6 and every checkpoint is finite",
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
    ("T7 T8", gradients_at_rest, 0, "True"),
    (
        "T10",
        groups(-1e-3),
        2,
        r"config\.optim\.groups\.core\.learning_rate must be a finite number .*got -0\.001",
    ),
    ("T10 nan", groups(float("nan")), 2, r"learning_rate must be a finite number .*got nan"),
    (
        "T10 b2",
        option("optim.b2", 1.0),
        2,
        r"config\.optim\.b2 must be a finite number in \[0, 1\), got 1\.0",
    ),
    (
        "T11",
        option("optim.warmup_steps", 13),
        2,
        r"warmup_steps is 13, longer than config\.train\.num_steps, 12",
    ),
    ("T11 steps", option("train.num_steps", 0), 2, r"config\.train\.num_steps must be .*\[1, inf\), got 0"),
    (
        "T12",
        option("data.batch_size", 6),
        2,
        r"batch_size is 6, which config\.optim\.micro_batches = 4 of 1 .* the nearest valid values are 4 and 8",
    ),
    (
        "T12 devices",
        lambda at: at.run(**{"optim.micro_batches": 6, "data.batch_size": 12, "train.num_steps": 2}),
        0,
        r"3 of 4 devices are used: config\.optim\.micro_batches is 6\n",
    ),
    (
        "T12 processes",
        two_processes,
        2,
        r"micro_batches is 6, which 4 devices of 2 processes cannot share: .*; the nearest .* are 4 and 8",
    ),
    ("T13", too_large, 2, r"batch_size = 384 needs 20\.00 GB and small has 1\.00 GB; lower config\.data"),
    ("T13 run", exhausted, 2, r"batch_size = 384 does not fit the device \(RESOURCE_EXHAUSTED.*lower"),
    ("T14", compiled_programs, 0, r"^\[0, 0, 0\]$"),
    ("T15", closed_cache, 0, r"^\(None, ''\)$"),
    ("T16", restarted, 0, "continuing from step 7"),
    ("T17", one_device, 0, "True"),
    ("T18", low_precision, 0, r"^\{'float32'\}$"),
    (
        "T19",
        lambda at: at.run(**{"train.patience": 1, "train.best_metric": "eval/bits"}),
        2,
        r"patience is 1, but an evaluation gives no config\.train\.best_metric, 'eval/bits'; it gives eval/bits_per_",
    ),
    (
        "T19 negative",
        option("train.patience", -1),
        2,
        r"config\.train\.patience must be .*\[0, inf\), got -1",
    ),
]
