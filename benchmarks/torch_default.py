"""The model of configs/polar.py in PyTorch, on windows: what the benchmarks compare our default model with.

As a PyTorch user would write it: a convolution over all frames, a loop over time that keeps every frame for the
gradient, summaries at the newest frame, pooling before mixing. Steps that only few frames need are done for those.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from benchmarks.torch_polar import POWER_FLOOR, BehaviorHeads, GazeEncoder, down, up

LOG_RATE_FLOOR = 1e-6
N_SUMMARIES = 7
ENCODER = {
    **{f"log_frequency_{axis}": f"pos_logw_{axis}" for axis in "xy"},
    **{f"phase_{axis}": f"pos_phi_{axis}" for axis in "xy"},
    "log_threshold": "sac_log_thr",
    "sharpness": "sac_invT",
    "hidden": "proj1",
    "code": "proj2",
}
HEADS = {
    "first": "fc1",
    "second": "fc2",
    "gate": "head_q",
    "velocity": "head_veff",
    "gain": "head_gam",
    "offset": "head_rho",
}
READOUT = ("mean", "log_width", "angle", "kernel", "bias")
NORMALIZATION = ("log_width", "log_semi_saturation")


def safe_scale(even: Tensor, odd: Tensor) -> Tensor:
    """Returns 1 / sqrt(max(e^2 + o^2, 1e-6))."""
    return (even**2 + odd**2).clamp_min(POWER_FLOOR).rsqrt()


class TorchDefault(nn.Module):
    """Stimulus [B, 1, T, H, W] and gaze [B, T, 2] -> log rates [B, N] of the newest bin.

    Args:
      options: config.model.kwargs of configs/polar.py.
      mean_count: of every unit, spikes/bin.
      side: of the frames, pixels.
    """

    def __init__(
        self,
        options: dict[str, Any],
        *,
        n_units: int,
        mean_count: float,
        side: int,
        dt: float,
        pixels_per_degree: float,
        code_width: int,
    ) -> None:
        """Makes all parameters; their values come from `load`."""
        super().__init__()
        self.options, self.mean_count, self.dt = options, mean_count, dt
        self.pixels_per_degree, self.side = pixels_per_degree, side
        levels, pairs, size = (options[name] for name in ("n_levels", "n_pairs", "kernel_size"))
        self.even, self.odd = (nn.Parameter(torch.zeros(pairs, 1, size, size)) for _ in range(2))
        self.gaze_encoder = GazeEncoder(code_width, dt, scaled=True)
        self.behavior_heads = BehaviorHeads(levels, pairs, code_width)
        for name in ("log_fixation", "log_saccade", "fast_logit", "slow_logit"):
            setattr(self, name, nn.Parameter(torch.zeros(())))
        self.resting_amplitude = nn.Parameter(torch.zeros(levels, pairs))
        depth = N_SUMMARIES * pairs
        shapes = ((n_units, 2), (n_units, 2), (n_units,), (n_units, levels, depth), (n_units,))
        for name, shape in zip(READOUT, shapes, strict=True):
            setattr(self, f"readout_{name}", nn.Parameter(torch.zeros(shape)))
        for name in NORMALIZATION:
            setattr(self, f"contrast_{name}", nn.Parameter(torch.zeros(n_units)))
        self.register_buffer("feature_mean", torch.zeros(levels, depth))
        self.register_buffer("feature_scale", torch.ones(levels, depth))
        angle = math.pi * torch.arange(pairs, dtype=torch.float64) / pairs
        octave = 0.15 * 0.5 ** torch.arange(levels, dtype=torch.float64)
        waves = octave[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1)
        self.register_buffer("waves", waves.float())

    def forward(self, stimulus: Tensor, gaze: Tensor) -> Tensor:
        """Computes the maps of all frames level by level, pools what the newest bin needs, mixes."""
        batch, _, n_frames = stimulus.shape[:3]
        decay, drive_gain, angle = self._motion(gaze)
        image = stimulus.transpose(1, 2).flatten(0, 1)
        pooled = []
        n_levels = self.options["n_levels"]
        for level in range(n_levels):
            lower = down(image) / 2
            band = image if level == n_levels - 1 else image - 2 * up(lower, *image.shape[2:])
            kernel = torch.cat([self.even, self.odd])
            maps = functional.conv2d(band, kernel, padding=kernel.shape[-1] // 2)
            even, odd = maps.unflatten(0, (batch, n_frames)).chunk(2, dim=2)
            rest = self.resting_amplitude[level][:, None, None]
            features = self._remember(even, odd, rest, decay, drive_gain, angle[:, :, level])
            pooled.append(torch.einsum("bdhw,nhw->bnd", features, self._window(level, *band.shape[2:])))
            image = lower
        kernel = self.readout_kernel / self.feature_scale
        bias = self.readout_bias - (kernel * self.feature_mean).sum((1, 2))
        driven = torch.einsum("bnld,nld->bn", torch.stack(pooled, 2), kernel)
        half = self.contrast_log_semi_saturation.exp()
        drive = bias + driven * 2 * half / (half + self._contrast(stimulus[:, 0, -1]))
        return torch.log(functional.softplus(drive) * self.mean_count + LOG_RATE_FLOOR)

    def _contrast(self, frame: Tensor) -> Tensor:
        """Returns the RMS contrast [B, N] of frames [B, H, W] around each unit."""
        width = self.contrast_log_width[:, None].expand(-1, 2)
        window = self._gaussian(width, torch.zeros_like(self.readout_angle), 0, *frame.shape[1:])
        mean, power = (torch.einsum("bhw,nhw->bn", x, window) for x in (frame, frame**2))
        return (power - mean**2).clamp_min(POWER_FLOOR).sqrt()

    def _motion(self, gaze: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns decay and drive gain [B, T] and the phase step [B, T, L, M]."""
        gate, velocity, gain, offset = self.behavior_heads(self.gaze_encoder(gaze))
        moved = torch.diff(gaze, dim=1, prepend=gaze[:, :1]) / self.dt
        velocity = velocity + moved * moved.new_tensor([-1.0, 1.0]) * self.pixels_per_degree
        starts = (self.options["fixation_rate"], self.options["saccade_rate"])
        fixation, saccade = (
            start * functional.softplus(raw) / math.log(2)
            for start, raw in zip(starts, (self.log_fixation, self.log_saccade), strict=True)
        )
        rate = ((1 - gate) * fixation + gate * saccade)[..., 0]
        decay = torch.exp(-rate * self.dt)
        cycles = torch.einsum("btd,lmd->btlm", velocity, self.waves)
        return decay, fixation / rate * (1 - decay), 2 * math.pi * gain * cycles * self.dt + offset

    def _remember(
        self, even: Tensor, odd: Tensor, rest: Tensor, decay: Tensor, drive_gain: Tensor, angle: Tensor
    ) -> Tensor:
        """Runs amplitude and pose over [B, T, M, h, w]; returns the seven summaries [B, 7 M, h, w]."""
        amplitudes = (even**2 + odd**2).clamp_min(POWER_FLOOR).sqrt().unbind(1)
        scale = safe_scale(even, odd)
        evens, odds = (even * scale).unbind(1), (odd * scale).unbind(1)
        cosines, sines = (part[..., None, None].unbind(1) for part in (angle.cos(), angle.sin()))
        decays, gains = (part[..., None, None, None].unbind(1) for part in (decay, drive_gain))
        a = amplitudes[0] if self.options["start"] == "drive" else rest.expand_as(amplitudes[0])
        z = (evens[0], odds[0])
        alphas = [self.fast_logit.sigmoid(), self.slow_logit.sigmoid()]
        averages = [torch.zeros_like(a) for _ in alphas]
        moved, poses, n = [], [], len(amplitudes)
        for t in range(n):
            g, c, s = decays[t], cosines[t], sines[t]
            a = rest + g * (a - rest) + gains[t] * (amplitudes[t] - rest)
            z = (
                g * (c * z[0] - s * z[1]) + (1 - g) * evens[t],
                g * (s * z[0] + c * z[1]) + (1 - g) * odds[t],
            )
            averages = [
                alpha * average + (1 - alpha) * a for alpha, average in zip(alphas, averages, strict=True)
            ]
            moved.append(a)
            poses.append(z)
        now, before = (tuple(part * safe_scale(*z) for part in z) for z in (poses[-1], poses[max(n - 3, 0)]))
        components = [
            (x**2 + ((x - y) / 2) ** 2).clamp_min(POWER_FLOOR) for x, y in zip(now, before, strict=True)
        ]
        corrected = [average / (1 - alpha**n) for alpha, average in zip(alphas, averages, strict=True)]
        energy = (components[0] + components[1]).clamp_min(POWER_FLOOR).sqrt()
        derivative = a - moved[max(n - 2, 0)]
        return torch.cat([a, *corrected, derivative, energy, a * now[0], a * now[1]], 1)

    def _window(self, level: int, height: int, width: int) -> Tensor:
        """Returns each unit's normalised Gaussian [N, h, w] over the samples of a level."""
        return self._gaussian(self.readout_log_width, self.readout_angle, level, height, width)

    def _gaussian(self, log_width: Tensor, angle: Tensor, level: int, height: int, width: int) -> Tensor:
        place, middle = self.readout_mean, (self.side - 1) / 2
        x = (torch.arange(width, dtype=place.dtype) * 2**level - middle) / self.pixels_per_degree
        y = (middle - torch.arange(height, dtype=place.dtype) * 2**level) / self.pixels_per_degree
        x, y = x[None, None] - place[:, 0, None, None], y[None, :, None] - place[:, 1, None, None]
        cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
        inverse = torch.exp(-log_width)[:, :, None, None]
        u, v = (cosine * x + sine * y) * inverse[:, 0], (-sine * x + cosine * y) * inverse[:, 1]
        return torch.softmax((-(u**2 + v**2) / 2).flatten(1), dim=1).unflatten(1, (height, width))

    def load(self, variables: dict[str, Any]) -> None:
        """Copies our parameters and statistics."""
        with torch.no_grad():
            for tensor, path, axes in self._places():
                value: Any = variables["params"]
                for name in path:
                    value = value[name]
                value = value[0] if path[0] == "readout" else value
                tensor.copy_(torch.as_tensor(np.array(np.transpose(value, axes) if axes else value)))
            for name in ("mean", "scale"):
                statistic = np.array(variables["statistics"][name])
                getattr(self, f"feature_{name}").copy_(torch.as_tensor(statistic))

    def gradients(self) -> dict[str, Any]:
        """Returns the gradients under our names and in our layout."""
        tree: dict[str, Any] = {}
        for tensor, (*branches, last), axes in self._places():
            node = tree
            for name in branches:
                node = node.setdefault(name, {})
            value = tensor.grad.numpy()
            value = np.transpose(value, np.argsort(axes)) if axes else value
            node[last] = value[None] if "readout" in branches else value
        return tree

    def _places(self) -> list[tuple[Tensor, tuple[str, ...], tuple[int, ...] | None]]:
        """Returns (parameter, our path, axes that turn our layout into PyTorch's) of every parameter."""
        places: list[Any] = [
            (getattr(self, name), ("filters", name, "kernel"), (3, 2, 0, 1)) for name in ("even", "odd")
        ]
        for ours, module, names in (
            ("gaze_encoder", self.gaze_encoder, ENCODER),
            ("behavior_heads", self.behavior_heads, HEADS),
        ):
            for name, theirs in names.items():
                part = getattr(module, theirs)
                if isinstance(part, nn.Linear):
                    places.append((part.weight, (ours, name, "kernel"), (1, 0)))
                    places.append((part.bias, (ours, name, "bias"), None))
                else:
                    places.append((part, (ours, name), None))
        places += [(getattr(self, name), ("rates", name), None) for name in ("log_fixation", "log_saccade")]
        places += [(getattr(self, name), ("alphas", name), None) for name in ("fast_logit", "slow_logit")]
        places += [(getattr(self, f"readout_{name}"), ("readout", name), None) for name in READOUT]
        places += [
            (getattr(self, f"contrast_{name}"), ("readout", "normalize", name), None)
            for name in NORMALIZATION
        ]
        return [*places, (self.resting_amplitude, ("resting_amplitude",), None)]
