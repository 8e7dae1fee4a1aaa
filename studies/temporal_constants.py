"""Time constants of Polar-V1: where they start, whether they learn, and how amplitudes remember.

python compare.py --study studies/temporal_constants.py

The virtual V1 has a memory of 100 ms in fixation and of 25 ms in saccades, so what is learned can be right or wrong.
"""

QUESTION = (
    "Are the time constants found from any start, and does it pay to learn them, and to remember at all?"
)
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
FROZEN = {f"optim.groups.{name}": None for name in ("lambda_fix", "lambda_sac", "alpha_fast", "alpha_slow")}
FRAMEWISE = {"model.kwargs.dynamics": "framewise"}
# Of the configs with the original constants, this one has the dynamics written down.
CONFIG = "configs/polar_behavior_only.py:quick"
RUNS = [
    (
        start + suffix,
        CONFIG,
        {f"model.kwargs.{name}": value for name, value in zip(NAMES, values, strict=True)} | what,
    )
    for suffix, what in {"": {}, "_frozen": FROZEN, "_framewise": FRAMEWISE}.items()
    for start, values in STARTS.items()
]
