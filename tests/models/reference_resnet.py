"""The reference's ResNet baseline: its input layer in NumPy, and its weights in our layout."""

import numpy as np

from polarjax.models.resnet_convgru import ResnetConvGRU

PIXELS_PER_DEGREE = 10.0
COMMON = {
    "n_units": (5,),
    "frame_shape": (51, 51, 1),
    "dt": 1 / 240,
    "pixels_per_degree": PIXELS_PER_DEGREE,
    "hidden": 6,
    "code_width": 3,
    "shortcut": "reference",
    "link": "exp",
    "gaze": "raw",
}
MODELS = {
    "res_small_gru": {"channels": (4, 8), "reductions": (1, 2)},
    "learned_res_small_gru_optimized": {
        "frontend_filters": 4,
        "channels": (4, 8, 6),
        "kernel_sizes": (5, 5, 3),
        "strides": (2, 1, 1),
        "pools": (0, 2, 1),
        "dilations": (1, 1, 2),
        "reductions": (1, 2, 2),
    },
}


def adapt(stimulus):
    """Blurs and magnifies as the reference's input layer does before training: its blur drops a row and a column."""
    side, scale = stimulus.shape[-1], np.log(2.0)
    variance = 1 + (0.44 * (1 / scale - 1)) ** 2
    kernel = np.exp(-((np.arange(8) - 4) ** 2) / (2 * variance))
    kernel /= kernel.sum()
    matrix = np.zeros((side - 1, side))
    for i, tap in np.ndindex(side - 1, 8):
        if 0 <= i + tap - 3 < side:
            matrix[i, i + tap - 3] = kernel[tap]
    place = (np.linspace(-1, 1, side) * scale + 1) / 2 * (side - 2)
    resample = np.maximum(1 - np.abs(place[:, None] - np.arange(side - 1)), 0)
    once = resample @ matrix
    return np.einsum("yi,xj,...ij->...yx", once, once, stimulus)


def make(name):
    """Returns the module that is the reference's tiny model `name`."""
    return ResnetConvGRU(**COMMON | MODELS[name])


def parameters(state, stride=4):
    """Returns (our parameters without those of the gaze, the reference's behaviour weights), linear in the state.

    Positions and widths are in the reference's pixels of maps; see `width_slope` for the gradient of widths.
    """

    def kernel(name):
        return np.transpose(state[name], (2, 3, 4, 1, 0))

    tree = {}
    for i in range(sum(name.endswith("shortcut.weight") for name in state)):
        place = f"convnet.layers.{i}."
        main = place + "main_block.components."
        tree[f"stage_{i}"] = stage = {
            "convolution": {"kernel": kernel(main + "conv.conv.weight")},
            "norm": {"scale": state[main + "norm.gamma"], "shift": state[main + "norm.beta"]},
            "shortcut": {"kernel": state[place + "shortcut.weight"][:, :, 0, 0, 0].T},
        }
        for ours, theirs in (("squeeze", "1"), ("excite", "3")):
            if f"{main}pool.se.{theirs}.weight" in state:
                weight = state[f"{main}pool.se.{theirs}.weight"][:, :, 0, 0, 0].T
                stage[ours] = {"kernel": weight, "bias": state[f"{main}pool.se.{theirs}.bias"]}
    if "frontend.temporal_conv.conv.weight" in state:
        tree["frontend"] = {"kernel": state["frontend.temporal_conv.conv.weight"][:, 0].T}
    gru = "modulator.gru."
    tree["gru"] = {
        "input": {
            "kernel": np.transpose(state[gru + "cell.conv_x.weight"], (2, 3, 1, 0)),
            "bias": state[gru + "cell.conv_x.bias"],
        },
        "recurrent": {"kernel": np.transpose(state[gru + "cell.conv_h.weight"], (2, 3, 1, 0))},
        "norm": {
            "scale": state[gru + "cell.layer_norm.weight"],
            "shift": state[gru + "cell.layer_norm.bias"],
        },
        "start": state[gru + "h0"].ravel(),
        "projection": {
            "kernel": state["modulator.output_proj.weight"][:, :, 0, 0].T,
            "bias": state["modulator.output_proj.bias"],
        },
    }
    tree["readout"] = {
        "mean": state["readouts.0.mean"][None, :, ::-1] * np.float32([1, -1]),
        "log_width": state["readouts.0.std"][None, :, ::-1],
        "angle": state["readouts.0.theta"][None],
        "kernel": state["readouts.0.features.weight"][None, :, None, :, 0, 0],
        "bias": state["readouts.0.bias"][None],
    }
    return tree, (state["modulator.beh_emb.weight"].T, state["modulator.beh_emb.bias"])


def in_degrees(tree, stride=4):
    """Turns the readout's pixels of maps into degrees and its widths into their logarithms."""
    scale = np.float32(stride / PIXELS_PER_DEGREE)
    readout = tree["readout"]
    moved = {"mean": readout["mean"] * scale, "log_width": np.log(readout["log_width"] * scale)}
    return tree | {"readout": readout | moved}


def slopes_in_degrees(slopes, tree, stride=4):
    """Turns the reference's gradients of positions and widths into ours."""
    scale = np.float32(stride / PIXELS_PER_DEGREE)
    readout, widths = slopes["readout"], tree["readout"]["log_width"]
    moved = {"mean": readout["mean"] / scale, "log_width": readout["log_width"] * widths}
    return slopes | {"readout": readout | moved}
