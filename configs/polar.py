"""Polar-V1 with the documented original constants: tau 100 ms in fixation, 25 ms in saccades; alpha 0.74 and 0.95.

    python train.py --config configs/polar.py            full size: 4 levels, 64 pairs, kernel 15, batch 384
    python train.py --config configs/polar.py:quick      the same model made small, for 2 CPU cores

Both fit the embedded virtual V1; --config.data.sessions=FOLDER fits your own sessions.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "quick")
CONSTANTS = ("lambda_fix", "lambda_sac", "alpha_fast", "alpha_slow")


def get_config(variant: str = "") -> ConfigDict:
    """Returns the full config, or the one for two CPU cores with variant 'quick'."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; allowed are {', '.join(map(repr, VARIANTS))}")
    config = ConfigDict()
    config.system = "polar"
    config.seed = 0
    config.init_from = (
        ""  # work directory of a trained run whose core, and readouts of sessions it shares, start this one
    )

    config.data = ConfigDict()
    config.data.sessions = (
        ""  # '' is the virtual V1; else session folders or folders of them, separated by commas
    )
    config.data.virtual = ConfigDict({"seed": 0, "minutes": 12.0, "cache": "", "gaze": ""})
    config.data.burn_in = 24
    config.data.predicted = 24
    config.data.batch_size = 384
    config.data.storage = "resident"
    config.data.seed = 0
    config.data.session_weights = ()
    config.data.equal_subjects = False
    config.data.contrast_weight = 0.0  # chance that a segment of step 0 is drawn by its contrast ..
    config.data.contrast_anneal = 0  # .. which is 0 from this step on
    config.data.drop_silent = False
    config.data.ignore_spikes = False  # True: every session as if recorded without spikes
    config.data.spike_fraction = 1.0  # of the training trials, in (0, 1]; the others are not used at all

    config.model = ConfigDict()
    config.model.name = "polar_v1"
    config.model.kwargs = ConfigDict()
    config.model.kwargs.n_levels = 4
    config.model.kwargs.n_pairs = 64
    config.model.kwargs.kernel_size = 15
    config.model.kwargs.fixation_rate = 10.0
    config.model.kwargs.saccade_rate = 40.0
    config.model.kwargs.alpha_fast = 0.74
    config.model.kwargs.alpha_slow = 0.95
    config.model.kwargs.start = "drive"
    config.model.kwargs.gaze = "scaled"
    config.model.kwargs.dynamics = "recurrent"
    config.model.kwargs.pose_memory = True
    config.model.kwargs.saccade_gate = "learned"
    config.model.kwargs.gaze_gain = False
    config.model.kwargs.normalization = True
    config.model.kwargs.zero_inflated = False
    config.model.kwargs.dtype = "float32"

    config.loss = ConfigDict()
    config.loss.weights = ConfigDict()
    config.loss.weights.poisson = 1.0
    config.loss.weights.zero_inflated_poisson = 0.0  # in place of poisson, with model.kwargs.zero_inflated
    config.loss.weights.constants = 0.0
    config.loss.weights.feature_l1 = 0.0  # 1e-7 in the documents' recipe of the ResNet
    config.loss.weights.feature_group_lasso = 0.0
    # (start, end), shares of the run between which a weight rises from 0; None for the whole weight all along
    config.loss.schedules = ConfigDict(dict.fromkeys(("constants", "feature_l1", "feature_group_lasso")))

    config.optim = ConfigDict()
    config.optim.groups = ConfigDict()
    config.optim.groups.core = ConfigDict({"learning_rate": 1.5e-3, "weight_decay": 5e-5})
    for name in CONSTANTS:
        config.optim.groups[name] = ConfigDict({"learning_rate": 1.5e-4, "weight_decay": 0.0})
    config.optim.groups.readout = ConfigDict({"learning_rate": 1e-3, "weight_decay": 5e-5})
    config.optim.bounds = ConfigDict(dict.fromkeys(CONSTANTS))  # (low, high) in 1/s or a frame, None for free
    config.optim.bounds.width_deg = (
        None  # or (low, high at the start, high at the end, share of the run until then)
    )
    config.optim.b1 = 0.9
    config.optim.b2 = 0.95
    config.optim.eps = 1e-8
    config.optim.clip_norm = 5.0
    config.optim.warmup_steps = 15 * 1024
    config.optim.schedule = "cosine"
    config.optim.micro_batches = 8  # the devices share them: 1, 2, 4 or 8 devices, to the same bits
    config.optim.deterministic = True

    config.train = ConfigDict()
    config.train.num_steps = 100 * 1024
    config.train.log_every = 128
    config.train.eval_every = 1024
    config.train.save_every = 1024
    config.train.eval_batches = 0
    config.train.keep_latest = 2
    config.train.keep_best = 1
    config.train.max_skipped = 20
    config.train.patience = (
        0  # evaluations without a better best_metric after which the run ends, 0 for never
    )
    config.train.best_metric = "eval/bits_per_spike"
    config.train.floor_steps = 4096  # of the linear-nonlinear model, trained afterwards
    config.train.watchdog_minutes = 30.0
    return make_quick(config) if variant == "quick" else config


def make_quick(config: ConfigDict) -> ConfigDict:
    """Makes a config small enough for two CPU cores: some minutes after the first compilation."""
    config.data.burn_in = 24
    config.data.predicted = 24
    config.data.batch_size = 8

    config.model.kwargs.n_levels = 3
    config.model.kwargs.n_pairs = 16
    config.model.kwargs.kernel_size = 9
    config.model.kwargs.finest_stride = 2
    config.model.kwargs.initial_width = 0.06
    config.model.kwargs.code_width = 32
    # What the time constants could be traded for is left out, so that some hundred steps find them: averages remember
    # too, simple cells want a pose that is fast, a learned gate trades its height for the rate in fixation, and
    # suppression by saccades is a gain of each unit.
    config.model.kwargs.summaries = ("last", "even", "odd")
    config.model.kwargs.pose_memory = False
    config.model.kwargs.saccade_gate = "speed"
    config.model.kwargs.gaze_gain = True

    config.optim.groups.core.learning_rate = 3e-3
    config.optim.groups.lambda_fix.learning_rate = config.optim.groups.lambda_sac.learning_rate = 5e-2
    with config.ignore_type():
        config.optim.groups.alpha_fast = config.optim.groups.alpha_slow = None
    config.optim.groups.readout.learning_rate = 1.5e-2
    config.optim.warmup_steps = 50
    config.optim.micro_batches = 4

    config.train.num_steps = 600
    config.train.log_every = 20
    config.train.eval_every = 200
    config.train.save_every = 200
    config.train.floor_steps = 2000
    return config
