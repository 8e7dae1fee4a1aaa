"""Which prediction makes a core worth more where spikes are few: how far ahead, how much is hidden, what may move.

python compare.py --study studies/jepa_choices.py

Every choice is pre-trained without spikes, and then trained with 5 % of the trials as in studies/label_efficiency.py:
`finetuned_*` all of it, `frozen_*` readouts alone. `scratch` has the same trials and no pre-training.
"""

QUESTION = "Which prediction is a core worth having for?"
SEEDS = (0,)
REFERENCE = "scratch"
METRICS = ("jepa/deviation", "jepa/rank", "jepa/loss", "jepa/loss_other_gaze")
CONSTANTS = ("tau_fix_ms", "tau_sac_ms")
TRUTH = {"tau_fix_ms": 100.0, "tau_sac_ms": 25.0}

PRETRAIN = "configs/polar_jepa_pretrain.py:quick"
CONFIG = "configs/polar.py:quick"
CHOICES = {
    "as_is": {},
    "delta_1": {"model.jepa.deltas": (1,)},
    "delta_10": {"model.jepa.deltas": (10,)},
    "mask_20": {"model.jepa.mask_ratio": 0.2},
    "mask_80": {"model.jepa.mask_ratio": 0.8},
    "kept_constants": {"optim.groups.lambda_fix": None, "optim.groups.lambda_sac": None},
}
FEW = {
    "data.spike_fraction": 0.05,
    "train.num_steps": 300,
    "train.eval_every": 50,
    "train.save_every": 50,
    "train.patience": 3,
    "optim.groups.readout.weight_decay": 1.0,
}
FROZEN = {f"optim.groups.{name}": None for name in ("core", "lambda_fix", "lambda_sac")}
RUNS = [
    ("scratch", CONFIG, FEW),
    *((choice, PRETRAIN, {"train.num_steps": 400} | values) for choice, values in CHOICES.items()),
    *(
        (f"{name}_{choice}", CONFIG, FEW | what, {"init_from": choice})
        for choice in CHOICES
        for name, what in (("finetuned", {}), ("frozen", FROZEN))
    ),
]
