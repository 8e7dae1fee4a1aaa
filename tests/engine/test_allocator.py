"""Freed memory is kept: a block that is allocated again and again costs its page faults once."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from polarjax.engine.allocator import SETTINGS, keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from polarjax.engine.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    print(*keep_freed_memory())
def touch():
    np.ones(2**22)  # 32 MiB, freed at once
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the settings are glibc's")
def test_blocks_that_come_again_cost_no_page_faults():
    *names, kept = faults("kept")
    assert names == list(SETTINGS)
    assert int(kept) < int(faults("plain")[-1]) / 10


def test_what_the_user_set_stays_and_another_libc_is_left_alone():
    calls = []
    libc = SimpleNamespace(mallopt=lambda *given: calls.append(given) or 1)
    assert keep_freed_memory({"MALLOC_MMAP_MAX_": "5"}, libc) == ["MALLOC_TRIM_THRESHOLD_"]
    assert calls == [SETTINGS["MALLOC_TRIM_THRESHOLD_"]]
    assert keep_freed_memory({}, SimpleNamespace()) == []
