"""Models of recordings of macaque V1 (docs/macaque.md); the sessions are named on the command line.

python -m polarjax.data.convert image_counts FILE.npz --recording all --out sessions/macaque
python compare.py --study studies/macaque_v1.py --config.data.sessions=sessions/macaque
"""

QUESTION = "What explains macaque V1 under images of movies that the model never saw?"
SEEDS = (0, 1, 2)
REFERENCE = "polar"
CONFIG = "configs/macaque_v1.py"
RUNS = [
    ("polar", CONFIG, {"train.floor_steps": 400}),
    ("narrow_surround", CONFIG, {"model.kwargs.surround": 2.0}),
    ("amplitude_only", CONFIG, {"model.kwargs.summaries": ("last",)}),
    ("phase_only", CONFIG, {"model.kwargs.summaries": ("even", "odd")}),
    ("no_decay", CONFIG, {"optim.groups.readout.weight_decay": 0.0}),
]
