"""The other side of a row: a train step in PyTorch, and the proof that both sides compute the same."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import cases
from benchmarks.cases import Case
from benchmarks.torch_default import TorchDefault
from benchmarks.torch_polar import TorchPolar
from polarjax.core import NumericError, PyTree
from polarjax.interop.visioncore import import_model

CLIP_NORM, LEARNING_RATE, BETAS = 5.0, 1e-3, (0.9, 0.95)
TOLERANCE = 1e-5
RATES = {"log_fixation": "lambda_fix", "log_saccade": "lambda_sac"}


class Twin:
    """A model in PyTorch and the same model with the same weights on our side.

    Attributes:
      model: [B, 1, T, H, W] and [B, T, 2] -> log rates [B, N].
      variables: parameters and statistics of our side.
    """

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case, sizes = case, case.sizes
        if case.twin == "default":
            self.variables = cases.initial_variables(case)
            self.model: Any = TorchDefault(
                cases.model_kwargs(case),
                n_units=sizes.n_units,
                mean_count=cases.MEAN_COUNT,
                side=sizes.side,
                dt=1 / cases.RATE_HZ,
                pixels_per_degree=cases.PIXELS_PER_DEGREE,
                code_width=cases.CODE_WIDTH,
            )
            self.model.load(self.variables)
            return
        fixation, saccade, fast, slow = cases.CONSTANTS[case.twin]
        fields = {name: getattr(sizes, name) for name in ("n_levels", "n_pairs", "kernel_size", "n_units")}
        behaves = case.twin != "minimal"
        self.model = TorchPolar(
            **fields, behavior=behaves, dt=1 / cases.RATE_HZ, rates=(fixation, saccade), alphas=(fast, slow)
        )
        self.variables = {"params": self._convert({})}

    def _convert(self, replaced: dict[str, np.ndarray]) -> PyTree:
        state = {name: value.detach().numpy() for name, value in self.model.state_dict().items()}
        return import_model(cases.reference_config(self.case.twin, self.case.sizes), state | replaced)[1]

    def gradients(self) -> PyTree:
        """Returns the gradients of the model's parameters under our names and in our layout."""
        if self.case.twin == "default":
            return self.model.gradients()
        found = {name: part.grad.numpy() for name, part in self.model.named_parameters()}
        # the conversion of all others is linear, so it converts gradients as well
        gradients = self._convert({name: value for name, value in found.items() if "lambda" not in name})
        for ours, theirs in RATES.items() if "rates" in gradients else ():
            start = getattr(self.model.recurrent.dynamics, theirs).item()
            slope = start * 0.5 / np.log(2.0)
            gradients["rates"][ours] = found[f"recurrent.dynamics.{theirs}"] * slope
        return gradients

    def loss(self, batch: Any) -> Tensor:
        """Returns the mean Poisson loss of windows whose last bin is predicted."""
        stimulus, gaze, spikes, _ = batch
        log_rate = self.model(stimulus, gaze).clamp(-20, 10)
        return (log_rate.exp() - spikes[:, 0] * log_rate).mean()


def to_torch(batch: Any, dtype: torch.dtype) -> Any:
    """Returns a batch as tensors, the stimulus as [B, 1, T, H, W]."""
    stimulus, *others = (torch.as_tensor(np.asarray(leaf), dtype=dtype) for leaf in batch)
    return (stimulus.permute(0, 4, 1, 2, 3).contiguous(), *others)


def check_twin(case: Case) -> None:
    """Compares loss and gradients of both sides, in double precision and at a small size.

    Raises:
      NumericError: they are not the same model, so their times must not be compared.
    """
    case = cases.small(dataclasses.replace(case, predicted=1, options={}))
    twin, batch = Twin(case), cases.make_batch(case, case.frames, 1)
    with jax.enable_x64(True):
        twin.model.double()
        value = twin.loss(to_torch(batch, torch.float64))
        value.backward()
        expected = jax.tree.map(np.asarray, twin.gradients())
        loss, gradients = cases.loss_and_gradients(case, twin.variables, batch)
    compare(case.name, loss, value.item())
    leaves = jax.tree_util.tree_leaves_with_path(gradients)
    for (path, found), wanted in zip(leaves, jax.tree.leaves(expected), strict=True):
        error = float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-12))
        compare(f"{case.name}: gradient of {jax.tree_util.keystr(path)}", 1 + error, 1.0)


def compare(what: str, found: float, wanted: float, tolerance: float = TOLERANCE) -> None:
    """Raises NumericError where two numbers differ by more than a relative tolerance, or are no numbers."""
    if not abs(found - wanted) <= tolerance * abs(wanted):
        raise NumericError(
            f"{what} is {found:.9g} on our side and {wanted:.9g} in PyTorch: the two sides are not the same model, "
            "so their times say nothing"
        )


class TorchStep:
    """A train step of a twin: loss, gradient, clipping, AdamW.

    Attributes:
      threads: of PyTorch's operations; the whole process has one number.
    """

    def __init__(self, twin: Twin, case: Case) -> None:
        self.threads = torch.get_num_threads()
        self.model: nn.Module = twin.model
        self.batch = to_torch(cases.make_batch(case, case.window, 1), torch.float32)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=5e-5
        )
        self.loss: Callable[[Any], Tensor] = twin.loss

    def choose_threads(self) -> None:
        """Takes one thread where that is faster than all cores, as on a busy machine where threads wait."""
        seconds = {}
        for threads in (1, os.cpu_count() or 1):
            torch.set_num_threads(threads)
            begin = time.perf_counter()
            self.run()
            seconds[threads] = time.perf_counter() - begin
        self.threads = min(seconds, key=lambda threads: seconds[threads])
        torch.set_num_threads(self.threads)

    def compile(self) -> float:
        """Compiles loss and gradient, which takes minutes; returns the seconds."""
        begin = time.perf_counter()
        self.loss = torch.compile(self.loss)
        self.loss(self.batch).backward()
        return time.perf_counter() - begin

    def run(self) -> float:
        """Does one train step; returns its loss."""
        self.optimizer.zero_grad()
        value = self.loss(self.batch)
        value.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        return value.item()
