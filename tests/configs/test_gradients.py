"""Every parameter of every config gets a gradient and is in one group; no gradient divides by what is broadcast."""

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Var, jaxprs_in_params

from polarjax import systems
from polarjax.core import Batch
from polarjax.engine import config
from polarjax.engine.optim import label_parameters
from polarjax.models.constants import PLACES
from polarjax.models.residual_options import FRONTEND_TAPS
from polarjax.ops.inverse_root import root
from tests.configs.test_configs import CONFIGS, INFO, RESNET, ROOT, SMALL_MODELS, SMALL_POLAR, load
from tests.programs import turned_products

BURN_IN, PREDICTED = 4, 4
# Three stages, each as small as it goes.
SMALL_LEARNED = {"channels": "(2,2,2)", "kernel_sizes": "(3,3,3)", "reductions": "(1,1,1)", "hidden": "2"}
SILENT = {
    "model.kwargs.zero_inflated": "True",
    "loss.weights.poisson": "0.0",
    "loss.weights.zero_inflated_poisson": "1.0",
}
POLAR, MACAQUE = (ROOT / "configs" / f"{name}.py" for name in ("polar", "macaque_v1"))
# configs/polar.py with other numbers, as tests/configs/test_configs.py says.
SAME_MODEL = ("polar_relaxed", "polar_very_relaxed")
FORMS = [
    *((path, "", {}) for path in CONFIGS if path.stem not in SAME_MODEL),
    (POLAR, "quick", {}),
    (POLAR, "quick", SILENT),
    (RESNET, "learned", {}),
    *((MACAQUE, variant, {}) for variant in ("reference", "resnet_convgru")),
]
LAYOUT = ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type")


class State:
    """What a loss reads of the training state."""

    step = 0

    def __init__(self, variables):
        self.target_params = variables.get("target")
        self.model_state = {
            name: leaf for name, leaf in variables.items() if name not in ("params", "target")
        }


def divisions_by_what_is_broadcast(jaxpr):
    """Yields where they are: `ops.division` says what is wrong with them."""
    makers = {variable: equation for equation in jaxpr.eqns for variable in equation.outvars}

    def smaller(divisor, quotient):
        """Tells whether a variable was smaller before it was broadcast."""
        while isinstance(divisor, Var) and divisor in makers and makers[divisor].primitive.name in LAYOUT:
            divisor = makers[divisor].invars[0]
        return isinstance(divisor, Var) and divisor.aval.size < quotient.aval.size

    for equation in jaxpr.eqns:
        if equation.primitive.name == "div" and smaller(equation.invars[1], equation.outvars[0]):
            frames = equation.source_info.traceback.frames
            ours = [frame for frame in frames if "/polarjax/" in frame.file_name]
            yield f"{ours[0].file_name}:{ours[0].line_num}" if ours else str(equation)
        for inner in jaxprs_in_params(equation.params):
            yield from divisions_by_what_is_broadcast(inner)


def test_divisions_by_what_is_broadcast_are_found_also_in_loops():
    x, y = jnp.ones((2, 3)), jnp.ones(3)

    def found(function):
        return len(list(divisions_by_what_is_broadcast(jax.make_jaxpr(function)(x, y).jaxpr)))

    assert found(lambda x, y: x / y[None]) == found(lambda x, y: x / y.sum()) == 1
    assert found(lambda x, y: jax.lax.fori_loop(0, 3, lambda _, x: x / jnp.tile(y, (2, 1))[:, :1], x)) == 1
    assert (
        found(lambda x, y: x * (1 / y)[None])
        == found(lambda x, y: x / (x + 1))
        == found(lambda x, y: x / 2)
        == 0
    )


def inverse_roots_of_arrays(program):
    """Returns XLA's own, whose last bits depend on where a loop is computed in vectors: see `ops.inverse_root`."""
    return re.findall(r"^.*\[\d+.*\]\S* rsqrt\(.*$", program, re.M)


def test_inverse_roots_of_arrays_are_found_also_those_that_xla_makes():
    def found(function, x):
        return len(inverse_roots_of_arrays(jax.jit(jax.grad(function)).lower(x).compile().as_text()))

    assert found(lambda x: jnp.sqrt(x).sum(), jnp.ones(3)) > 0
    assert found(jnp.sqrt, jnp.ones(())) == found(lambda x: root(x).sum(), jnp.ones(3)) == 0


@pytest.mark.parametrize("name", SAME_MODEL)
def test_what_is_left_out_is_polar_with_other_constants(name):
    ours, theirs = (load(ROOT / "configs" / f"{config}.py", "").to_dict() for config in (name, "polar"))
    for constant in ("fixation_rate", "saccade_rate", "alpha_fast", "alpha_slow"):
        del ours["model"]["kwargs"][constant], theirs["model"]["kwargs"][constant]
    assert ours == theirs


@pytest.mark.parametrize(
    ("path", "variant", "options"), FORMS, ids=lambda part: getattr(part, "stem", str(part) or "full")
)
def test_every_parameter_gets_a_gradient_and_is_in_one_group(path, variant, options):
    there = load(path, variant)
    small = SMALL_MODELS.get(there.model.name, SMALL_POLAR) if variant != "learned" else SMALL_LEARNED
    values = {f"model.kwargs.{name}": text for name, text in small.items() if name in there.model.kwargs}
    values |= options
    if there.data.burn_in:
        before = FRONTEND_TAPS if variant == "learned" else BURN_IN
        values |= {"data.burn_in": str(before), "data.predicted": str(PREDICTED)}
    settings = config.load(f"{path}:{variant}" if variant else str(path), values)
    system = systems.build(settings, INFO)
    random = np.random.default_rng(0)
    predicted = 1 if settings.data.burn_in == 0 else PREDICTED
    frames, bins = settings.data.burn_in + predicted, (2, predicted, INFO.max_units)
    arrays = [
        random.uniform(-0.5, 0.5, (2, frames, 51, 51, 1)),
        random.normal(0, 1, (2, frames, 2)).cumsum(1),
    ]
    arrays += [random.poisson(1.0, bins), np.ones(bins)]
    slow = Batch(*(jnp.asarray(array, jnp.float32) for array in arrays))
    variables = jax.jit(system.init)(jax.random.key(0), slow)
    # Heads that start at 0 hand no gradient back: all parameters are moved.
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(random.normal(0, 0.1, leaf.shape), leaf.dtype), variables["params"]
    )
    key, state = jax.random.key(1), State(variables)
    traced = jax.jit(jax.grad(lambda params, batch: system.loss(params, state, batch, key).loss)).trace(
        params, slow
    )
    assert not sorted(set(divisions_by_what_is_broadcast(traced.jaxpr.jaxpr)))
    slope = traced.lower().compile()
    assert not inverse_roots_of_arrays(slope.as_text())
    assert not turned_products(slope.as_text())
    # Raw gaze features saturate heads in fast movements, and saccade gates in slow ones.
    gradients = [slope(params, slow._replace(gaze=scale * slow.gaze)) for scale in (0.01, 0.3)]
    largest = jax.tree.map(lambda *leaves: max(float(jnp.abs(leaf).max()) for leaf in leaves), *gradients)
    labels = label_parameters(system.param_group, params)
    assert set(jax.tree.leaves(labels)) <= set(settings.optim.groups)
    # A time constant is a group of its own, and what belongs to units is in none but the readout's.
    counts = collections.Counter(jax.tree.leaves(labels))
    assert {counts[name] for name in PLACES if name in counts} <= {1}
    of_units = (len(INFO.sessions), INFO.max_units)
    of_readout = [leaf.shape[:2] == of_units for leaf in jax.tree.leaves(params)]
    assert of_readout == [label == "readout" for label in jax.tree.leaves(labels)]
    # Readouts that are not trained, without a likelihood, need no gradient.
    silent = {"readout"} if settings.optim.groups.readout is None else set()
    places = zip(jax.tree.leaves_with_path(largest), jax.tree.leaves(labels), strict=True)
    assert not [jax.tree_util.keystr(at) for (at, size), group in places if size == 0 and group not in silent]
