import os
import subprocess
import sys


def test_a_wrong_command_line_ends_with_one_line_and_code_two(repository):
    command = [sys.executable, "train.py", "--confg", "x"]
    done = subprocess.run(command, cwd=repository, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: unknown flag --confg; did you mean 'config'?\n"
