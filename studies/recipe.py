"""The documents' recipe against ours, one change at a time, at the size of two CPU cores.

python compare.py --study studies/recipe.py

The documents' core learns at 1.5 times the readout's rate and its time constants at a tenth of the core's; 15 of 100
epochs warm up, linearly, then a cosine falls to 0; the gradient's norm is clipped at 5 (10 for ResNets); kernels decay.
"""

QUESTION = "Which parts of the training recipe matter?"
SEEDS = (0, 1, 2)
REFERENCE = "ours"
CONSTANTS = ("tau_fix_ms", "tau_sac_ms")
TRUTH = {"tau_fix_ms": 100.0, "tau_sac_ms": 25.0}

POLAR = "configs/polar.py:quick"
TEMPORAL = ("lambda_fix", "lambda_sac", "alpha_fast", "alpha_slow")


def rates(core: float, temporal: float, readout: float) -> dict[str, float]:
    """Learning rates of all groups."""
    groups = {"core": core, "readout": readout} | dict.fromkeys(TEMPORAL, temporal)
    return {f"optim.groups.{name}.learning_rate": rate for name, rate in groups.items()}


DOCUMENTS = {**rates(core=1.5e-3, temporal=1.5e-4, readout=1e-3), "optim.warmup_steps": 90}
RUNS = [
    ("ours", POLAR, {}),
    ("documents", POLAR, DOCUMENTS),
    ("documents_x10", POLAR, {**rates(core=1.5e-2, temporal=1.5e-3, readout=1e-2), "optim.warmup_steps": 90}),
    ("core_not_scaled", POLAR, {"optim.groups.core.learning_rate": 1.5e-2}),
    ("long_warmup", POLAR, {"optim.warmup_steps": 90}),
    ("no_warmup", POLAR, {"optim.warmup_steps": 0}),
    ("constant_rate", POLAR, {"optim.schedule": "constant"}),
    ("clip_10", POLAR, {"optim.clip_norm": 10.0}),
    ("clip_1", POLAR, {"optim.clip_norm": 1.0}),
    ("no_decay", POLAR, {f"optim.groups.{name}.weight_decay": 0.0 for name in ("core", "readout")}),
    ("b2_0.999", POLAR, {"optim.b2": 0.999}),
]
