"""Compiles in a moment what is run once."""

import functools

import jax

quickly = functools.partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
)
