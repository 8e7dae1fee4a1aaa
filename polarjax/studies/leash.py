"""Becomes another program, which gets SIGTERM when the process that started it is gone: leash.py PARENT PROGRAM ..

A program of its own, since little may be done between a fork and an exec in a process with threads. On Linux alone;
elsewhere the program just starts.
"""

import ctypes
import os
import signal
import sys

SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>; it outlasts the exec


def main(arguments: list[str]) -> None:
    """Takes the leash and becomes the program; leaves at once where the parent is gone already."""
    parent, *program = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit("the program that started this one is gone")
    os.execv(program[0], program)


if __name__ == "__main__":
    main(sys.argv[1:])
