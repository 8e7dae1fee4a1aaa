"""Models of recordings of macaque V1 (docs/macaque.md); the sessions are named on the command line.

python -m polarjax.data.convert image_counts FILE.npz --recording all --out sessions/macaque
python compare.py --study studies/macaque_v1.py --config.data.sessions=sessions/macaque/ay4_u006 --workdir DIR

One recording at a time: the steps are too few for several at once. The decay of the readouts, ten times that of the
config, and the number of steps were chosen by bits per spike of the validation movies of three recordings. Time
constants are not among the questions: under an image that rests before an eye that rests, a memory scales all
amplitudes alike, which the readouts undo.
"""

QUESTION = "What explains macaque V1 under images of movies that the model never saw?"
SEEDS = (0, 1, 2)
REFERENCE = "polar"
CONFIG = "configs/macaque_v1.py"
# The best of the evaluations on the validation movies is kept.
SAVED = {
    "optim.groups.readout.weight_decay": 30.0,
    "train.num_steps": 800,
    "train.eval_every": 200,
    "train.save_every": 200,
}
RUNS = [
    ("polar", CONFIG, SAVED | {"train.floor_steps": 400}),
    ("polar_reference", f"{CONFIG}:reference", SAVED),
    ("resnet_convgru", f"{CONFIG}:resnet_convgru", SAVED),
    ("normalized", CONFIG, SAVED | {"model.kwargs.normalization": True}),
    ("amplitude_only", CONFIG, SAVED | {"model.kwargs.summaries": ("last",)}),
    ("phase_only", CONFIG, SAVED | {"model.kwargs.summaries": ("even", "odd")}),
]
