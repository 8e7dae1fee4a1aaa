"""Processes and storage that go wrong: rows of (id, action, exit code, message)."""

import json
import os
import shutil
import signal
import threading
import time

import numpy as np

from polarjax.engine import archive, interruption, logs, sharding, storage
from polarjax.engine.workdir import claim
from tests.engine import toy
from tests.engine.runs import flip_a_bit, mesh_of

USAGE = type(shutil.disk_usage("/"))


class Killed(BaseException):
    """What no handler of errors catches."""


def left_over(place):
    place.stop(4)
    folder = place.folder / "run" / "checkpoints"
    (folder / "5.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (folder / ".trash" / "0").mkdir(parents=True)
    place.run()
    return place.steps(), [path.name for path in folder.glob("*tmp*")], os.listdir(folder / ".trash")


def killed_after_a_save(place):
    data = toy.make_data()

    def train(step):
        if step == 4:
            raise Killed
        return data.train(step)

    try:
        place.run(data=data._replace(train=train))
    except Killed:
        return place.steps()


def signalled(number):
    def action(place):
        data = toy.make_data()

        def train(step):
            if step == 5:
                os.kill(os.getpid(), number)
            return data.train(step)

        assert threading.current_thread() is threading.main_thread()
        with interruption.watch_signals() as stop:
            return place.run(data=data._replace(train=train), stop=stop)

    return action


def signalled_in_an_evaluation(place):
    data = toy.make_data()

    def evaluation(tier, batch_size):
        for request in data.evaluation(tier, batch_size):
            os.kill(os.getpid(), signal.SIGTERM)
            yield request

    with interruption.watch_signals() as stop:
        return place.run(data=data._replace(evaluation=evaluation), stop=stop)


def signalled_while_the_step_is_compiled(place):
    system, sent = toy.make_system(), []

    def loss(*arguments):
        sent.append(os.kill(os.getpid(), signal.SIGTERM))
        return system.loss(*arguments)

    with interruption.watch_signals() as stop:
        return place.run(system=system._replace(loss=loss), stop=stop)


def signalled_at_the_report(number):
    def action(place):
        before = signal.getsignal(number)
        try:
            with interruption.leave_on_signal("the report was written"):
                signal.raise_signal(number)
        finally:
            assert signal.getsignal(number) is before

    return action


def three_signals(place):
    try:
        with interruption.watch_signals():
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        return place.printed()


def full_disk(full):
    def action(place):
        calls = iter(range(1000))

        def usage(path):
            return USAGE(10**12, 0, 5 if next(calls) in full else 10**12)

        place.monkeypatch.setattr(storage.shutil, "disk_usage", usage)
        return place.run(**{"train.save_every": 2})

    return action


def full_log(place):
    write = os.write

    def refuse(descriptor, content):
        if content.startswith(b'{"step"'):
            raise OSError(28, "No space left on device")
        return write(descriptor, content)

    place.monkeypatch.setattr(logs.os, "write", refuse)
    return place.run()


def read_only(place):
    (place.folder / "run").mkdir()
    (place.folder / "below").write_text("")
    (place.folder / "run" / "checkpoints").symlink_to(place.folder / "below")
    return place.run()


def damaged(damage):
    def action(place):
        damage(place.stop(6))
        return place.run()

    return action


def delete_arrays(folder):
    shutil.rmtree(folder / "state" / "d")
    shutil.rmtree(folder / "state" / "ocdbt.process_0")


def all_damaged(place):
    flip_a_bit(place.stop(3))
    flip_a_bit(place.folder / "run" / "checkpoints" / "0")
    return place.run()


def resumed(**options):
    def action(place):
        place.stop(5)
        return place.run(**options)

    return action


def bias_like(array):
    system = toy.make_system()

    def init(rng, batch):
        variables = system.init(rng, batch)
        core = dict(variables["params"]["core"], bias=array)
        return {**variables, "params": {**variables["params"], "core": core}}

    return system._replace(init=init)


def on_one_device(place):
    place.stop(5)
    one = mesh_of(1)
    place.monkeypatch.setattr(sharding, "make_mesh", lambda micro_batches: one)
    return place.run()


def used_twice(place):
    with claim(place.folder / "run"):
        return place.run()


def stale_lock(place):
    (place.folder / "run").mkdir()
    (place.folder / "run" / "lock").write_text("process 1 on another\n")
    return place.run()


def clock_that_jumps(place):
    place.stop(5)
    now = time.time
    place.monkeypatch.setattr(time, "time", lambda: now() - 10**6)
    place.run()
    return place.steps()


def other_format(place):
    path = place.stop(5) / "meta" / "metadata"
    meta = json.loads(path.read_text())
    del meta["digest"]
    meta["format_version"] = 99
    path.write_text(json.dumps({**meta, "digest": archive.digest_of_json(meta)}))
    return place.run()


STOPPED = "stopped at step {} and saved; to continue, run the same line again"
SIX_DAMAGED = r"warning: .*checkpoints/6: step 6 is damaged, .*continuing from step 4"

ROWS = [
    ("C1 C2", left_over, 0, r"^\(\[8, 12\], \[\], \[\]\)$"),
    ("C3", killed_after_a_save, 0, r"^\[0, 4\]$"),
    ("C4 C5", signalled(signal.SIGTERM), 75, STOPPED.format(6)),
    ("C6", signalled_in_an_evaluation, 75, STOPPED.format(4)),
    ("C6 compile", signalled_while_the_step_is_compiled, 75, STOPPED.format(1)),
    *(
        (
            f"C6 report {number.name}",
            signalled_at_the_report(number),
            75,
            "stopped while the report was written; all",
        )
        for number in interruption.SIGNALS
    ),
    ("C7", three_signals, 0, "^stopping: the run is being saved; a third signal ends it at once\n$"),
    ("C8", signalled(signal.SIGHUP), 75, STOPPED.format(6)),
    ("C8 USR1", signalled(signal.SIGUSR1), 75, STOPPED.format(6)),
    (
        "C9",
        full_disk({1}),
        0,
        r"warning: .*a checkpoint needs [\d,]+ bytes and 5 are free.*training goes on, the next interval",
    ),
    (
        "C9 again",
        full_disk(range(1, 99)),
        4,
        r"run/checkpoints: a checkpoint needs [\d,]+ bytes and 5 are free",
    ),
    (
        "C10",
        full_log,
        0,
        r"metrics\.jsonl: the log cannot be written \(No space left on device\).*training goes",
    ),
    ("C11", read_only, 4, r"checkpoints: a checkpoint cannot be written \(.*Errno \d+"),
    ("C12", damaged(flip_a_bit), 0, SIX_DAMAGED),
    ("C13", damaged(delete_arrays), 0, SIX_DAMAGED),
    ("C14", all_damaged, 4, r"not started again from 0: .*step 3 is damaged.*step 0 is damaged"),
    (
        "C15",
        resumed(**{"optim.clip_norm": 9.0}),
        2,
        r"config\.optim\.clip_norm is 5\.0 there and 9\.0 here.*--allow-config-change optim\.clip_norm",
    ),
    (
        "C15 allowed",
        resumed(**{"optim.clip_norm": 9.0}, allowed_changes=["optim.clip_norm"]),
        0,
        r"config\.optim\.clip_norm was 5\.0 and is 9\.0 from here on",
    ),
    (
        "C16",
        resumed(system=bias_like(np.zeros(5, np.float32))),
        4,
        r"params/core/bias is float32\[4\] in the check",
    ),
    (
        "C17",
        resumed(system=bias_like(np.zeros(4, np.float16))),
        4,
        r"bias is float32\[4\] .* float16\[4\] in the model",
    ),
    ("C18", on_one_device, 0, "continuing from step 5"),
    (
        "C19",
        resumed(data=toy.make_data(fingerprint="abd")),
        3,
        "have changed: session 'toy' is not what the run",
    ),
    ("C20", used_twice, 4, rf"run is in use by process {os.getpid()} on {os.uname().nodename}"),
    ("C21", stale_lock, 0, "step 12/12"),
    ("C22", clock_that_jumps, 0, r"^\[8, 12\]$"),
    ("C23", other_format, 4, r"checkpoints/5 has format version 99, this program reads 1"),
]
