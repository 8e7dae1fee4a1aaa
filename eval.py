"""Evaluates a trained model: python eval.py --workdir DIR [--step N] [--tier test|validation]."""

from __future__ import annotations

import os
import pathlib
import sys

from polarjax.core import ConfigError, PolarjaxError, closest
from polarjax.engine import blas, compilation, cpu_flags, sharding
from polarjax.engine.flags import parse_flags, read_step
from polarjax.reports import evaluate, table

FLAGS = {
    "workdir": "the directory that train.py --workdir was given",
    "step": "step of the checkpoint, or latest; without it, the best of validation",
    "tier": "test (default) or validation: which trials",
}
TIERS = {"validation": 1, "test": 2}


def main(arguments: list[str]) -> int:
    """Evaluates, writes the report and prints its table; returns the exit code."""
    try:
        flags, _ = parse_flags(arguments, FLAGS, __doc__)
        if "workdir" not in flags:
            raise ConfigError("--workdir is missing; for example --workdir runs/polar_relaxed-quick")
        step = read_step(flags.get("step", "best"))
        tier = flags.get("tier", "test")
        if tier not in TIERS:
            raise ConfigError(f"--tier is {tier!r}{closest(tier, TIERS)}")
        blas.use_one_thread()
        cpu_flags.add_cpu_flags(os.environ)
        sharding.find_devices()
        compilation.enable_compilation_cache()
        report = evaluate.write_report(flags["workdir"], step, TIERS[tier])
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    table.print_table(report)
    folder = evaluate.report_folder(pathlib.Path(flags["workdir"]), report["checkpoint_step"], TIERS[tier])
    print(f"report: {folder / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
