"""Processes that hang or are killed while their data are read: rows of (id, action, exit code, message)."""

import os
import signal
import subprocess
import sys

from polarjax.engine import watchdog

READER = """
import json, sys, time
import ml_collections
from polarjax import data
from polarjax.engine.watchdog import Watchdog
built = data.build(ml_collections.ConfigDict(json.loads(sys.argv[1])))
with Watchdog(float(sys.argv[2])) as dog:
    dog.alive()
    built.train(0)
    print("reading", flush=True)
    time.sleep(60)
"""


def armed(place):
    """A run arms the watchdog before its steps, longer where a program is compiled, and it ends the process."""
    calls = []
    place.monkeypatch.setattr(
        watchdog.faulthandler, "dump_traceback_later", lambda s, **k: calls.append((s, k))
    )
    place.run()
    return {seconds for seconds, _ in calls}, all(options["exit"] for _, options in calls)


def reader(place, minutes):
    """Starts a process that reads ahead from a streamed session, in a process group of its own."""
    section = place.section(place.write(), storage="streamed").to_json()
    return subprocess.Popen(
        [sys.executable, "-c", READER, section, str(minutes)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def left_of(process):
    """Returns what is left of the group of a process that has ended."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return "nothing"
    return "a process"


def hung(place):
    process = reader(place, 0.5 / 60)
    errors = process.communicate(timeout=120)[1]
    return process.returncode, left_of(process), errors


def killed(place):
    process = reader(place, 0)
    assert process.stdout.readline() == "reading\n"
    process.kill()
    process.communicate(timeout=120)
    return process.returncode, left_of(process)


ROWS = [
    ("C24", armed, 0, r"^\(\{.*3000\.0.*\}, True\)$"),
    ("C24 hung", hung, 0, r"^\(1, 'nothing', 'Timeout \(0:00:00\.5.*Thread .*line 11 in <module>"),
    ("C24 killed", killed, 0, r"^\(-9, 'nothing'\)$"),
]
