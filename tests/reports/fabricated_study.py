"""Runs of a study with fabricated numbers."""

import numpy as np

from polarjax.reports.study import Question
from polarjax.reports.study_results import Result

GAINS = {"polar": 0.0, "reference": -0.09, "minimal": -0.03, "minimal_time": 0.004, "linear_nonlinear": -0.33}
ENDS = {
    "polar": (108, 26),
    "reference": (102, 25.5),
    "minimal": None,
    "minimal_time": None,
    "linear_nonlinear": None,
}
SEEDS = (0, 1, 2)


def make_question(**fields):
    names = {name: f"configs/{name}.py:quick" for name in GAINS}
    constants = ("tau_fix_ms", "tau_sac_ms")
    truth = dict(zip(constants, (100.0, 25.0), strict=True))
    asked = Question("v1_models", "What do gaze and memory add?", "polar", {}, SEEDS, names, constants, truth)
    return asked._replace(**fields)


def make_results(seeds=SEEDS):
    random = np.random.default_rng(0)
    level = random.normal(0.7, 0.25, 40)
    taste = {name: random.normal(gain, 0.03 + abs(gain) / 4, 40) for name, gain in GAINS.items()}
    results = []
    for name, gain in taste.items():
        for seed in seeds:
            bits = level + gain + random.normal(0, 0.004) + random.normal(0, 0.01, 40)
            units = {("a", str(n)): (bits[n], level[n] + 0.25, 100.0) for n in range(39)}
            units["a", "39"] = (float("nan"),) * 2 + (0.0,)
            row = {"entry": name, "seed": seed, "num_steps": 600, "checkpoint_step": 600}
            row |= {"bits_per_spike": bits[:39].mean(), "bits_per_spike_median": np.median(bits[:39])}
            row |= {"correlation_median": 0.3, "trial_mean_correlation_median": 0.5}
            row |= {"oracle_bits_per_spike": 0.955, "oracle_fraction": bits[:39].mean() / 0.955}
            row |= {"parameters": 4321, "training_seconds": 60.0 + seed, "wall_clock_seconds": 90.0}
            if ENDS[name]:
                for constant, start, end in zip(
                    ("tau_fix_ms", "tau_sac_ms"), (200.0, 50.0), ENDS[name], strict=True
                ):
                    row |= {f"{constant}_start": start, constant: end * random.normal(1, 0.03)}
            dynamics = "framewise" if name == "reference" else "recurrent"
            results.append(Result(row, units, None, {"a": "f" * 64}, dynamics))
    return results
