"""Trains a system, then its floor, and reports on both; the same line continues an interrupted run.

python train.py --config configs/polar_relaxed.py:quick [--workdir DIR] [--config.train.num_steps=500]
"""

import os
import pathlib
import sys

import jax

import polarjax.data
import polarjax.systems
from polarjax.core import PolarjaxError
from polarjax.engine import (
    agreement,
    allocator,
    blas,
    compilation,
    config,
    cpu_flags,
    interruption,
    loop,
    processes,
    sharding,
)
from polarjax.engine.flags import parse_flags
from polarjax.reports import evaluate, table

FLAGS = {
    "config": "config file, path.py or path.py:argument",
    "workdir": "folder of the run (default: runs/<config>[-argument])",
    "allow-config-change": "values of the config, by commas, that may differ from those the run began with",
    "break-lock": "take --workdir from a process that is gone, as after a crash of its machine",
    "distributed": "join the other processes of a TPU pod; those of SLURM and Open MPI join by themselves",
    "coordinator_address": "host:port of process 0, for a run of several processes that are started otherwise",
    "num_processes": "number of processes of the run",
    "process_id": "index of this process, from 0",
}


def main(arguments: list[str]) -> None:
    """Reads the flags, trains, writes the report of the run and prints its table."""
    flags, overrides = parse_flags(arguments, FLAGS, __doc__, switches=("break-lock", "distributed"))
    settings = config.load(flags.get("config"), overrides)
    allowed = [name.removeprefix("config.") for name in flags.get("allow-config-change", "").split(",")]
    workdir = pathlib.Path(flags.get("workdir") or config.default_workdir(flags["config"]))
    _, optim = config.validate(settings)
    allocator.keep_freed_memory()
    blas.use_one_thread()
    cpu_flags.add_cpu_flags(os.environ)
    processes.initialize_distributed(flags)
    sharding.use_cores(optim.micro_batches)
    sharding.find_devices()
    compilation.enable_compilation_cache()
    with interruption.watch_signals() as stop:
        with interruption.leave_alone_on_signal("the data was read"), agreement.fail_together():
            data = polarjax.data.build(settings.data)
        try:
            runs = {workdir: settings, workdir / evaluate.LINEAR_NONLINEAR: polarjax.systems.floor(settings)}
            for folder, run in runs.items():
                if run is not None:
                    print(f"{run.model.name} in {folder}", flush=True)
                    system = polarjax.systems.build(run, data.info)
                    options = {"allowed_changes": allowed, "break_lock": "break-lock" in flags}
                    loop.train(run, system, data, folder, stop=stop, **options)
        finally:
            data.close()
    try:
        if jax.process_index() == 0:
            with interruption.leave_on_signal("the report was written"):
                report = evaluate.write_report(workdir)
            table.print_table(report)
            print(f"report: {evaluate.report_folder(workdir, report['checkpoint_step']) / 'report.html'}")
    finally:
        processes.wait_for_processes()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except interruption.Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        sys.exit(interrupted.exit_code)
    except PolarjaxError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
