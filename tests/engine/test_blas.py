"""The factorisations that JAX calls have one thread; NumPy's own products keep theirs."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os
import jax.numpy as jnp
from threadpoolctl import ThreadpoolController
from polarjax.engine.blas import use_one_thread
told = use_one_thread()
jnp.linalg.cholesky(jnp.eye(3)).block_until_ready()
for library in ThreadpoolController().lib_controllers:
    print(os.path.basename(library.filepath) in told, library.num_threads)
"""


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core has one thread anyway")
@pytest.mark.parametrize("chosen", [{}, {"OPENBLAS_NUM_THREADS": "2"}])
def test_one_thread_unless_the_user_says_how_many(chosen):
    given = {name: value for name, value in os.environ.items() if not name.endswith("NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=given | chosen, capture_output=True, text=True, check=True
    )
    threads = dict(line.split() for line in done.stdout.splitlines())
    assert threads.get("True") == (None if chosen else "1")
