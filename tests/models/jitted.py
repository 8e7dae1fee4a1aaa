"""A model as one compiled program: operation by operation most of the time goes into compiling small ones."""

import functools

import jax


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "then"))
def apply(module, variables, *arrays, then=(), method=None):
    """module.apply(variables, *arrays, *then, method=method); `then` holds what is no array."""
    return module.apply(variables, *arrays, *then, method=method)
