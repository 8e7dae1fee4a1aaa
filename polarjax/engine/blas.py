"""How many threads factorise a matrix on CPUs: one. Without JAX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import scipy.linalg  # noqa: F401  its BLAS is the one that JAX calls
from threadpoolctl import ThreadpoolController

CHOSEN_BY_USERS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


def use_one_thread(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Gives SciPy's BLAS, whose factorisations JAX calls on CPUs, one thread.

    It shares even a triangular solve of 32 rows among all cores. Where these are the devices of a step, threads wait
    for cores that are at work: beside other programs the gradient of a coding rate of 32 columns took 15 ms, and 0.15
    with one thread.

    Args:
      environment: where it says how many threads there are, that stays.

    Returns:
      File names of the libraries that were told.
    """
    if any(name in environment for name in CHOSEN_BY_USERS):
        return []
    libraries = [
        library
        for library in ThreadpoolController().lib_controllers
        if library.user_api == "blas" and "scipy." in Path(library.filepath).parent.name
    ]
    for library in libraries:
        library.set_num_threads(1)
    return [Path(library.filepath).name for library in libraries]
