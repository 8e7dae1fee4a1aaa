"""Spikes that pre-training without spikes saves: a core trained by prediction, then few trials with spikes.

python compare.py --study studies/label_efficiency.py
python compare.py --study studies/label_efficiency.py --config.data.virtual.gaze=marmoset_fixation_gaze_120hz.npz

`scratch_*` learns all from the trials with spikes. The others start from `pretrained`, which saw stimulus and gaze of
all trials and no spikes: `finetuned_*` goes on with all of it, `frozen_*` trains readouts alone. `gabors_*` trains
readouts alone too, on the core as it is drawn: what pre-training has changed is the difference to it. The checkpoint
is chosen by the spikes of the whole validation tier in all of them, so differences at a share say what pre-training
adds there, and not how few spikes a whole fit needs. Readouts decay, as few trials have to keep them small: of 5e-5,
1, 5 and 20, a decay of 1 is best for `scratch_5` on the validation tier (seed 0: 0.501, 0.578, 0.565, 0.452).
"""

QUESTION = "How many spikes does pre-training without spikes save?"
SEEDS = (0, 1, 2)
REFERENCE = "scratch_5"
METRICS = ("jepa/deviation", "jepa/rank", "jepa/loss", "jepa/loss_other_gaze")

CONFIG = "configs/polar.py:quick"
FRACTIONS = {"1": 0.01, "2": 0.02, "5": 0.05, "10": 0.1, "100": 1.0}
SHORT = {
    "train.num_steps": 300,
    "train.eval_every": 50,
    "train.save_every": 50,
    "train.patience": 3,
    "optim.groups.readout.weight_decay": 1.0,
}
GROUPS = ("core", "lambda_fix", "lambda_sac")
FROZEN = {f"optim.groups.{name}": None for name in GROUPS}
START = {"init_from": "pretrained"}
RUNS = [
    ("pretrained", "configs/polar_jepa_pretrain.py:quick", {"train.num_steps": 400}),
    *(
        (f"{name}_{percent}", CONFIG, SHORT | what | {"data.spike_fraction": fraction}, *more)
        for percent, fraction in FRACTIONS.items()
        for name, what, more in (
            ("scratch", {}, ()),
            ("gabors", FROZEN, ()),
            ("finetuned", {}, (START,)),
            ("frozen", FROZEN, (START,)),
        )
    ),
]
# Each is compared with the training from scratch on as many spikes.
REFERENCES = {
    f"{name}_{percent}": f"scratch_{percent}"
    for percent in FRACTIONS
    for name in ("gabors", "finetuned", "frozen")
    if f"scratch_{percent}" != REFERENCE
}
