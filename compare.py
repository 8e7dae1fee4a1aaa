"""Trains the runs of a study that are missing and compares them, or compares two runs unit by unit.

python compare.py --study studies/v1_models.py [--workdir DIR] [--seeds 3] [--only NAME,NAME] [--config.a.b=VALUE]
python compare.py --runs runs/a,runs/b [--workdir DIR]
"""

from __future__ import annotations

import pathlib
import sys

from polarjax.core import PolarjaxError
from polarjax.engine import sharding
from polarjax.engine.flags import parse_flags
from polarjax.reports import pair, table
from polarjax.studies import conduct, plan, study_file

FLAGS = {
    "study": "study file, or its name in studies/: the runs and the question; see docs/studies.md. There are "
    + (", ".join(study_file.study_names()) or "none here"),
    "runs": "two work directories, by a comma: the second is compared with the first",
    "workdir": "folder of the study (default: runs/studies/<study>) or of the comparison (below runs/pairs)",
    "seeds": "number of seeds, counted from 0 (default: those of the study)",
    "only": "entries of the study to train, by commas (default: all)",
    "config": "--config.a.b=VALUE sets a value of the config in every entry of the study",
}
TRAIN = pathlib.Path(__file__).with_name("train.py")


def main(arguments: list[str]) -> int:
    """Runs the study or compares the runs, prints the table; returns the exit code."""
    try:
        flags, overrides = parse_flags(arguments, FLAGS, __doc__ or "")
        if plan.is_study(flags, overrides):
            options = {name: flags.get(name) for name in ("workdir", "seeds", "only")}
            summary = conduct.run_study(flags["study"], TRAIN, overrides=overrides, **options)
            table.print_study(summary)
            conduct.raise_failures(summary)
        else:
            sharding.find_devices()
            table.print_pair(pair.compare_runs(*plan.read_runs(flags["runs"]), flags.get("workdir")))
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
