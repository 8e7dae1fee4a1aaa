"""Time constants of Polar-V1: whether they are found, where they start, whether they learn, how amplitudes remember.

python compare.py --study studies/temporal_constants.py

The virtual V1 has a memory of 100 ms in fixation and of 25 ms in saccades, so what is learned can be right or wrong.

`found_*` and `framewise_*` hold what the constants could be traded for: there are no averages, which have a memory of
their own; the pose is that of each frame, for simple cells want a fast one; each unit has a gain that the gaze sets,
for suppression is no relaxation; the saccade gate is that of the speed, for a learned one trades its height for the
rate; and segments begin two memories before the first scored frame. The others have all that configs/polar.py has at
full size.
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
HELD = {
    "model.kwargs.pose_memory": False,
    "model.kwargs.gaze_gain": True,
    "model.kwargs.saccade_gate": "speed",
    "data.burn_in": 24,
    "optim.groups.lambda_fix.learning_rate": 0.05,
    "optim.groups.lambda_sac.learning_rate": 0.05,
}
FRAMEWISE = {"model.kwargs.dynamics": "framewise"}
AVERAGES = {"model.kwargs.summaries": ("last", "fast", "slow", "derivative", "even", "odd")}
ALPHA = {"learning_rate": 3e-2, "weight_decay": 0.0}
LEARNED = {"optim.groups.alpha_fast": ALPHA, "optim.groups.alpha_slow": ALPHA}
FROZEN = {"optim.groups.lambda_fix": None, "optim.groups.lambda_sac": None}
KINDS = {
    "found_": HELD,
    "framewise_": HELD | FRAMEWISE,
    "": AVERAGES | LEARNED,
    "frozen_": AVERAGES | FROZEN,
}


def starts(values: tuple[float, ...]) -> dict[str, float]:
    """Values of the constants before the first step."""
    return {f"model.kwargs.{name}": value for name, value in zip(NAMES, values, strict=True)}


RUNS = [
    (kind + start, CONFIG, SHORT | what | starts(values))
    for kind, what in KINDS.items()
    for start, values in STARTS.items()
]
