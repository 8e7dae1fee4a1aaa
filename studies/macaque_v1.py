"""Models of recordings of macaque V1 (docs/macaque.md); the sessions are named on the command line.

python -m polarjax.data.convert image_counts FILE.npz --recording all --out sessions/macaque
python compare.py --study studies/macaque_v1.py --config.data.sessions=sessions/macaque/ay4_u006 --workdir DIR

One recording at a time: the steps are too few for several at once. The decay of the readouts, ten times that of the
config, and the number of steps were chosen by bits per spike of the validation movies of three recordings.

`original` and `relaxed` see the 24 frames of the image and two of the grey before it, with amplitudes that remember, as
fast as their names say; as that is 26 times the work, in a fourth of the steps. Little is to be expected: under an
image that rests before an eye that rests, a memory scales all amplitudes alike, which the readouts undo.
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
TRIAL = SAVED | {
    "train.num_steps": 200,
    "data.burn_in": 25,
    "model.kwargs.dynamics": "recurrent",
    "model.kwargs.gaze": "scaled",
    "model.kwargs.saccade_gate": "speed",
    "model.kwargs.pose_memory": False,
}
RELAXED = {"model.kwargs.fixation_rate": 5.0, "model.kwargs.saccade_rate": 20.0}
RUNS = [
    ("polar", CONFIG, SAVED | {"train.floor_steps": 400}),
    ("polar_reference", f"{CONFIG}:reference", SAVED),
    ("resnet_convgru", f"{CONFIG}:resnet_convgru", SAVED),
    ("normalized", CONFIG, SAVED | {"model.kwargs.normalization": True}),
    ("amplitude_only", CONFIG, SAVED | {"model.kwargs.summaries": ("last",)}),
    ("original", CONFIG, TRIAL),
    ("relaxed", CONFIG, TRIAL | RELAXED),
    ("phase_only", CONFIG, SAVED | {"model.kwargs.summaries": ("even", "odd")}),
]
