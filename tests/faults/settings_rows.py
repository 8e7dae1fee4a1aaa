"""Settings of a run that are out of range or do not fit each other: rows of (id, action, exit code, message)."""

import jax

from polarjax.engine import workdir
from tests.engine import tiny_polar


def option(name, value):
    return lambda at: at.run(**{name: value})


def groups(rate):
    group = {"learning_rate": rate, "weight_decay": 0.0}
    return option("optim.groups", {"core": group, "readout": group})


def two_processes(place):
    place.monkeypatch.setattr(jax, "process_count", lambda: 2)
    place.monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    place.monkeypatch.setattr(workdir, "gather", lambda value: [value, value])
    return place.run(**{"optim.micro_batches": 6})


def short_segments(place):
    config = tiny_polar.add_objective(tiny_polar.make_config(), {"jepa": 1.0}, deltas=(2, tiny_polar.LENGTH))
    return tiny_polar.make_system(config)


ROWS = [
    (
        "D19",
        short_segments,
        2,
        r"^A JEPA target 5 frames after its context needs more than 5 frames, but segments have 5; lengthen .* lower",
    ),
    (
        "T10",
        groups(-1e-3),
        2,
        r"config\.optim\.groups\.core\.learning_rate must be a finite number .*got -0\.001",
    ),
    ("T10 large", groups(1e3), 2, r"learning_rate must be a finite number in \[0, 1\], got 1000\.0"),
    *(
        (
            f"T10 {name}",
            option(name, value),
            2,
            rf"config\.{name} must be a .* number in .*0, 1.*\], got {value}",
        )
        for name, value in (("optim.eps", 2.0), ("optim.clip_norm", 2e6), ("train.watchdog_minutes", 2e4))
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
    (
        "T11 steps",
        option("train.num_steps", 0),
        2,
        r"config\.train\.num_steps must be .*\[1, 1e\+09\], got 0",
    ),
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
