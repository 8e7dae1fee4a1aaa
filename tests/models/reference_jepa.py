"""The reference's JEPA head: its options and its weights."""

import jax.numpy as jnp
import numpy as np

REFERENCE = {"predictor_size": 1, "hides_masked": False, "normalizes_prediction": False}


def reference_params(arrays, prefix, projector, n_levels, dtype=np.float32):
    """Returns parameters of the head: [out, in, 1, 1] becomes [in, out], or [1, 1, in, out] in the predictor."""

    def dense(name):
        weight = arrays[f"{prefix}{name}.weight"][:, :, 0, 0].T
        return {
            "kernel": jnp.asarray(weight, dtype),
            "bias": jnp.asarray(arrays[f"{prefix}{name}.bias"], dtype),
        }

    params = {}
    for level in range(n_levels):
        hidden, out = (dense(f"{projector}.{level}.{i}") for i in (0, 2))
        params[f"projector_{level}"] = {"hidden": hidden, "out": out}
        first, out = (dense(f"pred.{level}.{i}") for i in (0, 2))
        params[f"predictor_{level}"] = {
            "kernel": first["kernel"][None, None],
            "bias": first["bias"],
            "out": out,
        }
    return params
