"""The conditions of every test: CPU, four devices, strict shapes and ranks, caches that no user shares."""

import atexit
import os
import pathlib
import shutil
import signal
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]

# JAX reads these once, at its import. The processes that a test or pytest-xdist starts inherit them.
os.environ["JAX_PLATFORMS"] = "cpu"
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    # Four devices on two busy cores may wait long for each other; XLA ends the process after 40 s. Plain code compiles
    # in less than half of the time, and in one part with less work where each core has a process of tests.
    flags = (
        "force_host_platform_device_count=4",
        "cpu_collective_call_terminate_timeout_seconds=120",
        "backend_optimization_level=0",
        "cpu_parallel_codegen_split_count=1",
    )
    os.environ["XLA_FLAGS"] = " ".join(
        [os.environ.get("XLA_FLAGS", ""), *(f"--xla_{flag}" for flag in flags)]
    )
# Tests that are started in the background, or by nohup, begin with signals ignored, and would hand that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("MPLCONFIGDIR", str(ROOT / ".pytest_cache" / "matplotlib"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # Sessions of an earlier version of the generator must not be found: a fresh cache a run, which its workers share.
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="polarjax-tests-")
    atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

import jaxtyping  # noqa: E402

jaxtyping.install_import_hook("polarjax", "beartype.beartype")

from polarjax.engine.blas import use_one_thread  # noqa: E402
from polarjax.engine.cpu_flags import add_cpu_flags  # noqa: E402

add_cpu_flags(os.environ)
use_one_thread()

import jax  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def golden():
    """Loads reference numbers: golden('polar/laplacian_pyramid') -> {name: array} of tests/golden/<name>.npz."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(ROOT / "tests" / "golden" / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load
