"""Time constants of Polar-V1: whether they are found, where they start, whether they learn, how amplitudes remember.

python compare.py --study studies/temporal_constants.py

The virtual V1 has a memory of 100 ms in fixation and of 25 ms in saccades, so what is learned can be right or wrong.

The quick config leaves out what the constants could be traded for (see configs/polar.py). `full_*` puts all of it
back, as the config has it at full size, with averages whose memory is learned too. In `framewise_*` no amplitude
remembers the frame before, though its equation has the same two constants.
"""

QUESTION = "Are time constants found from any start, and do their start, learning and memory pay?"
SEEDS = (0, 1, 2)
REFERENCE = "original"
CONSTANTS = ("tau_fix_ms", "tau_sac_ms", "tau_fast_ms", "tau_slow_ms")
TRUTH = {"tau_fix_ms": 100.0, "tau_sac_ms": 25.0}

STARTS = {
    "original": (10.0, 40.0, 0.74, 0.95),
    "relaxed": (5.0, 20.0, 0.80, 0.90),
    "very_relaxed": (2.0, 10.0, 0.85, 0.85),
}
NAMES = ("fixation_rate", "saccade_rate", "alpha_fast", "alpha_slow")
CONFIG = "configs/polar.py:quick"
SHORT = {"train.num_steps": 400}
FRAMEWISE = {"model.kwargs.dynamics": "framewise"}
FROZEN = {"optim.groups.lambda_fix": None, "optim.groups.lambda_sac": None}
ALPHA = {"learning_rate": 3e-2, "weight_decay": 0.0}
FULL = {
    "model.kwargs.summaries": ("last", "fast", "slow", "derivative", "energy", "even", "odd"),
    "model.kwargs.pose_memory": True,
    "model.kwargs.saccade_gate": "learned",
    "model.kwargs.gaze_gain": False,
    "optim.groups.alpha_fast": ALPHA,
    "optim.groups.alpha_slow": ALPHA,
}
KINDS = {"": {}, "frozen_": FROZEN, "framewise_": FRAMEWISE, "full_": FULL}


def starts(values: tuple[float, ...]) -> dict[str, float]:
    """Values of the constants before the first step."""
    return {f"model.kwargs.{name}": value for name, value in zip(NAMES, values, strict=True)}


RUNS = [
    (kind + start, CONFIG, SHORT | what | starts(values))
    for kind, what in KINDS.items()
    for start, values in STARTS.items()
]
