"""XLA's flags for CPUs: what a user gives stays, and JAX takes them all."""

import os
import subprocess
import sys

from polarjax.engine.cpu_flags import CPU_FLAGS, add_cpu_flags


def test_flags_are_added_to_what_is_given():
    environment = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=true --xla_dump_to=there"}
    add_cpu_flags(environment)
    first, second, *rest = environment["XLA_FLAGS"].split()
    assert [first, second] == ["--xla_cpu_multi_thread_eigen=true", "--xla_dump_to=there"]
    assert [flag.partition("=")[0].strip("-") for flag in rest] == [
        name for name in CPU_FLAGS if name != "xla_cpu_multi_thread_eigen"
    ]
    again = dict(environment)
    add_cpu_flags(again)
    assert again == environment


def test_jax_knows_every_flag_and_reads_them_when_it_starts():
    program = """
import os
import jax
from polarjax.engine.cpu_flags import add_cpu_flags
add_cpu_flags(os.environ)
print(jax.jit(lambda x: x + 1)(1))
"""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["2"]
