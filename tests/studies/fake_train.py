"""Stands in for train.py: the same flags and files in a fraction of a second, with fabricated numbers.

It counts its starts. config.optim.clip_norm says how it ends: 3 after half of its steps, 7 fails, 8 is killed, 9 waits
for a signal, saves and leaves with 75; 2 has no spikes. Where config.init_from names no run it fails. Its session is
another one for every config.data.virtual.seed.
"""

import ast
import csv
import functools
import json
import os
import pathlib
import runpy
import signal
import sys
import time

import numpy as np

from polarjax.engine import archive
from polarjax.engine.flags import parse_flags


def load(flag, overrides):
    """Opens a config as polarjax.engine.config does, without JAX."""
    path, argument = flag.split(".py:")
    settings = runpy.run_path(path + ".py")["get_config"](argument)
    for name, text in overrides.items():
        *branches, leaf = name.split(".")
        parent = functools.reduce(lambda section, key: section[key], branches, settings)
        with parent.ignore_type():
            parent[leaf] = text if isinstance(parent[leaf], str) else ast.literal_eval(text)
    return settings


def write_run(folder, settings):
    steps, seed = settings.train.num_steps, settings.seed
    steps //= 2 if settings.optim.clip_norm == 3.0 else 1
    speed = settings.data.batch_size / settings.optim.eps / 1e3
    lines = [
        {"step": steps // 2, "time/samples_per_second": speed},
        {"step": steps, "time/samples_per_second": speed},
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    spikes = settings.optim.clip_norm != 2.0
    metrics = {"eval/bits_per_spike": 0.5 if spikes else float("nan")}
    session = {"name": "one", "fingerprint": str(settings.data.virtual.seed) * 64}
    info = {"rate_hz": 120.0, "sessions": [session]}
    meta = {"config": settings.to_dict(), "metrics": metrics, "info": info}
    place = archive.checkpoint_folder(folder, steps) / "meta"
    place.mkdir(parents=True, exist_ok=True)
    (place / "metadata").write_text(json.dumps(archive.seal({"step": np.asarray(steps)}, meta)))
    bits = {unit: settings.model.kwargs.fixation_rate / 10 + seed / 100 + unit / 10 for unit in range(3)}
    report = folder / "eval" / str(steps)
    report.mkdir(parents=True, exist_ok=True)
    mean = sum(bits.values()) / 3
    fields = {
        "checkpoint_step": steps,
        "bits_per_spike": {"mean": mean, "median": mean},
        "correlation": {"median": 0.3, "with_trial_mean": None},
        "oracle_bits_per_spike": {"mean": 2.0},
        "oracle_fraction": mean / 2,
        "linear_nonlinear": None,
        "constants": {"temporal/tau_fix_ms": 104.0 + seed},
        "constants_start": {"temporal/tau_fix_ms": 1e3 / settings.model.kwargs.fixation_rate},
        "parameters": 1234,
    }
    if not spikes:
        fields = {name: fields[name] for name in ("checkpoint_step", "parameters")}
        (report / "report.json").write_text(json.dumps(fields | {"bits_per_spike": {"mean": float("nan")}}))
        return
    (report / "report.json").write_text(json.dumps(fields))
    with open(report / "units.csv", "w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["session", "unit", "spikes", "bits_per_spike", "oracle_bits_per_spike"])
        writer.writerows(["one", unit, 50, value, 2.0] for unit, value in bits.items())


def main(arguments):
    flags, overrides = parse_flags(arguments, {"config": "", "workdir": ""}, "")
    settings = load(flags["config"], overrides)
    folder = pathlib.Path(flags["workdir"])
    with open(folder / "starts", "a") as starts:
        starts.write("x")
    (folder / "config.json").write_text(json.dumps(settings.to_dict()))
    if settings.init_from and not archive.list_steps(settings.init_from):
        print(f"error: no run in {settings.init_from}", file=sys.stderr)
        return 2
    if settings.optim.clip_norm == 7.0 and not (folder / "mended").exists():
        print("a long story\nerror: the filters fell out", file=sys.stderr)
        return 5
    if settings.optim.clip_norm == 8.0:
        os.kill(os.getpid(), signal.SIGKILL)
    if settings.optim.clip_norm == 9.0 and not (folder / "saved").exists():
        signal.signal(signal.SIGTERM, lambda number, frame: (folder / "saved").touch())
        (folder / "waiting").touch()
        while not (folder / "saved").exists():
            time.sleep(0.02)
        return 75
    write_run(folder, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
