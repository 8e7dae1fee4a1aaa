"""The documents' training recipe against ours, and each of its parts alone, at the size of two CPU cores.

python compare.py --study studies/recipe.py

The documents' core learns at 1.5 times the readout's rate and its time constants at a tenth of the core's; 15 of 100
epochs warm up, linearly, then a cosine falls to 0; the gradient's norm is clipped at 5; kernels decay. Their rates are
for 102,400 steps of 384 segments: here they are tried as they are, and ten times as high. What the reference's code
makes of them is another recipe, also tried ten times as high: core, constants and readout learn at one rate.
"""

QUESTION = "Which parts of the training recipe matter?"
SEEDS = (0, 1, 2)
REFERENCE = "ours"
CONSTANTS = ("tau_fix_ms", "tau_sac_ms")
TRUTH = {"tau_fix_ms": 100.0, "tau_sac_ms": 25.0}

POLAR = "configs/polar.py:quick"
STEPS = 400
SHORT = {"train.num_steps": STEPS}
PIXELS_PER_DEGREE = 37.0


def rates(core: float, temporal: float, readout: float) -> dict[str, float]:
    """Learning rates of all groups."""
    groups = {"core": core, "readout": readout, "lambda_fix": temporal, "lambda_sac": temporal}
    return {f"optim.groups.{name}.learning_rate": rate for name, rate in groups.items()}


WARMUP = {"optim.warmup_steps": STEPS * 15 // 100}
# Widths in degrees: 0.001 to 10 pixels at the start, to 1.5 from the middle of the run on.
CLAMP = {
    "optim.bounds.width_deg": tuple(pixels / PIXELS_PER_DEGREE for pixels in (0.001, 10.0, 1.5)) + (0.5,)
}
PARTS = {
    "ours": {},
    "documents": rates(core=1.5e-3, temporal=1.5e-4, readout=1e-3) | WARMUP,
    "documents_x10": rates(core=1.5e-2, temporal=1.5e-3, readout=1e-2) | WARMUP,
    "reference_x10": rates(core=1e-2, temporal=1e-2, readout=1e-2) | WARMUP,
    "no_warmup": {"optim.warmup_steps": 0},
    "constant_rate": {"optim.schedule": "constant"},
    "clamped_widths": CLAMP,
    "feature_l1": {"loss.weights.feature_l1": 1e-5, "loss.schedules.feature_l1": (0.0, 0.5)},
    "group_lasso": {"loss.weights.feature_group_lasso": 1e-5},
    "contrast_first": {"data.contrast_weight": 0.5, "data.contrast_anneal": STEPS // 2},
    "zero_inflated": {
        "model.kwargs.zero_inflated": True,
        "loss.weights.poisson": 0.0,
        "loss.weights.zero_inflated_poisson": 1.0,
    },
}
RUNS = [(name, POLAR, SHORT | values) for name, values in PARTS.items()]
