"""What keeps the codes of self-supervision from collapsing: a slow teacher, a stopped gradient, the coding rate.

python compare.py --study studies/jepa_collapse.py

Without any of them the loss is lowest where all codes are the same. No spikes are read: there are no bits per spike.
"""

QUESTION = "What keeps codes from collapsing?"
SEEDS = (0, 1, 2)
REFERENCE = "ema_rate"
METRICS = ("jepa/deviation", "jepa/cosine", "jepa/rank", "jepa/rate", "jepa/loss", "jepa/loss_other_gaze")

CONFIG = "configs/polar_jepa_pretrain.py:quick"
SMALL = {
    "model.kwargs.n_levels": 2,
    "model.kwargs.n_pairs": 8,
    "data.burn_in": 8,
    "data.predicted": 4,
    "train.num_steps": 300,
    "train.eval_every": 100,
    "train.save_every": 100,
}
RATES = {"": 0.0, "_rate": 0.2}
TARGETS = ("ema", "stop_gradient", "none")
RUNS = [
    (target + name, CONFIG, SMALL | {"model.jepa.target": target, "loss.weights.coding_rate": rate})
    for target in TARGETS
    for name, rate in RATES.items()
]
