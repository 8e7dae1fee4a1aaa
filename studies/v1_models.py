"""Models of V1 on the virtual V1, whose oracle is known.

python compare.py --study studies/v1_models.py
"""

QUESTION = (
    "How well do models of V1 explain spikes under natural eye movements, at equal steps and at equal time?"
)
SEEDS = (0, 1, 2)
REFERENCE = "polar"
OTHERS = ("polar_reference", "polar_minimal", "resnet_convgru", "linear_nonlinear")
SHORT = {"train.num_steps": 400}
RUNS = [
    ("polar", "configs/polar.py:quick", SHORT),
    # as the baselines, which have no division by the local contrast
    ("polar_not_normalized", "configs/polar.py:quick", SHORT | {"model.kwargs.normalization": False}),
    *((name, f"configs/{name}.py:quick", SHORT) for name in OTHERS),
    *((f"{name}_time", f"configs/{name}.py:quick", SHORT, {"as_long_as": "polar"}) for name in OTHERS),
]
