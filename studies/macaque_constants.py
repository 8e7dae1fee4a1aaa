"""Time constants of recordings of macaque V1 under images (docs/macaque.md); the session is named on the command line.

python -m polarjax.data.convert image_counts FILE.npz --recording all --out sessions/macaque
python compare.py --study studies/macaque_constants.py --config.data.sessions=sessions/macaque/ay4_u006 --workdir DIR

The model of studies/macaque_v1.py with amplitudes that remember, on the 24 frames of the image and two of the grey
before it; as that is 26 times the work, in a fourth of the steps. Little is to be expected: under an image that rests
before an eye that rests, a memory scales all amplitudes alike, which the readouts undo.
"""

QUESTION = "Are relaxed time constants worth more than the original ones in macaque V1 under images?"
SEEDS = (0, 1, 2)
REFERENCE = "original"
CONFIG = "configs/macaque_v1.py"
TRIAL = {
    "data.burn_in": 25,
    "model.kwargs.dynamics": "recurrent",
    "model.kwargs.gaze": "scaled",
    "model.kwargs.saccade_gate": "speed",
    "model.kwargs.pose_memory": False,
    "optim.groups.readout.weight_decay": 30.0,
    "train.num_steps": 200,
    "train.eval_every": 200,
    "train.save_every": 200,
    "train.floor_steps": 0,
}
RUNS = [
    ("original", CONFIG, TRIAL),
    ("relaxed", CONFIG, TRIAL | {"model.kwargs.fixation_rate": 5.0, "model.kwargs.saccade_rate": 20.0}),
]
