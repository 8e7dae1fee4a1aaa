"""Polar-V1 in PyTorch, written as its formulas are: the model that the benchmarks compare with.

Every map of every frame is kept, [B, M, T, H, W], channels are mixed before they are pooled, and a window of T frames
predicts one bin. Names and shapes of the parameters are those that `polarjax.interop.visioncore` reads.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

POWER_FLOOR = 1e-6
N_SUMMARIES = 5
MAX_VELOCITY, MAX_OFFSET = 50.0, 0.1
VELOCITY_SCALE, ACCELERATION_SCALE = 10.0, 1000.0


def blur_taps(x: Tensor) -> Tensor:
    """Returns the binomial taps of Burt and Adelson, sqrt(2)/16 (1, 4, 6, 4, 1)."""
    return x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) * math.sqrt(2) / 16


def down(x: Tensor) -> Tensor:
    """Blurs [B, 1, H, W] and keeps every second sample."""
    taps = blur_taps(x)
    x = functional.pad(x, (2, 2, 2, 2), mode="reflect")
    return functional.conv2d(
        functional.conv2d(x, taps.view(1, 1, 5, 1), stride=(2, 1)), taps.view(1, 1, 1, 5), stride=(1, 2)
    )


def up(x: Tensor, height: int, width: int) -> Tensor:
    """Puts zeros between the samples of [B, 1, h, w] and blurs to H x W."""
    taps = blur_taps(x)
    x = functional.pad(x, (1, 1, 1, 1), mode="reflect")
    spread = x.new_zeros(x.shape[0], 1, height + 4, width + 4)
    spread[:, :, : 2 * x.shape[2] : 2, : 2 * x.shape[3] : 2] = x
    return functional.conv2d(functional.conv2d(spread, taps.view(1, 1, 5, 1)), taps.view(1, 1, 1, 5))


def pyramid(x: Tensor, n_levels: int) -> list[Tensor]:
    """Splits [B, 1, H, W] into band-pass levels, finest first, and the low-pass rest."""
    levels = []
    for _ in range(n_levels - 1):
        lower = down(x)
        levels.append(x - up(lower, *x.shape[2:]))
        x = lower
    return [*levels, x]


class FilterBank(nn.Module):
    """One depthwise filter and a 1 x 1 mix to M maps, once for even and once for odd."""

    def __init__(self, n_pairs: int, kernel_size: int) -> None:
        """Makes the four convolutions."""
        super().__init__()
        for name in ("even", "odd"):
            spatial = nn.Conv2d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
            setattr(self, f"dw_{name}", spatial)
            setattr(self, f"mix_{name}", nn.Conv2d(1, n_pairs, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns even and odd maps of [B, 1, H, W]."""
        return self.mix_even(self.dw_even(x)), self.mix_odd(self.dw_odd(x))


class GazeEncoder(nn.Module):
    """Gaze [B, T, 2] -> code [B, T, D], from 20 features a frame: raw, or with asinh-scaled kinematics."""

    def __init__(self, width: int, dt: float, scaled: bool = False) -> None:
        """Makes features and two dense layers."""
        super().__init__()
        self.dt, self.scaled = dt, scaled
        for axis in "xy":
            setattr(self, f"pos_logw_{axis}", nn.Parameter(torch.full((2,), math.log(1 / 64))))
            setattr(self, f"pos_phi_{axis}", nn.Parameter(torch.zeros(2)))
        self.sac_log_thr = nn.Parameter(torch.tensor(math.log(200.0)))
        self.sac_invT = nn.Parameter(torch.tensor(0.05))
        self.proj1, self.proj2 = nn.Linear(20, width), nn.Linear(width, width)

    def forward(self, gaze: Tensor) -> Tensor:
        """Differentiates, gates, encodes."""
        velocity = torch.diff(gaze, dim=1, prepend=gaze[:, :1]) / self.dt
        acceleration = torch.diff(velocity, dim=1, prepend=velocity[:, :1]) / self.dt
        acceleration = torch.cat([torch.zeros_like(acceleration[:, :1]), acceleration[:, 1:]], 1)
        speed = velocity.square().sum(-1).add(1e-24).sqrt()
        floored = speed + 1e-6
        along = (velocity * acceleration).sum(-1) / floored
        across = (velocity[..., 0] * acceleration[..., 1] - velocity[..., 1] * acceleration[..., 0]) / floored
        gate = torch.sigmoid(self.sac_invT * (speed - self.sac_log_thr.exp()))
        features = []
        for index, axis in enumerate("xy"):
            frequency = getattr(self, f"pos_logw_{axis}").exp()
            angle = 2 * math.pi * gaze[..., index : index + 1] * frequency + getattr(self, f"pos_phi_{axis}")
            features += [angle.sin(), angle.cos()]
        averages = [self._average(gate, alpha) for alpha in (0.8, 0.95)]
        direction = velocity / floored[..., None]
        if self.scaled:
            velocity, speed = (torch.asinh(x / VELOCITY_SCALE) for x in (velocity, speed))
            scaled = (torch.asinh(x / ACCELERATION_SCALE) for x in (acceleration, along, across))
            acceleration, along, across = scaled
        numbers = torch.stack([along, across, gate, *averages], -1)
        features += [velocity, speed[..., None], direction, acceleration, numbers]
        hidden = functional.gelu(self.proj1(torch.cat(features, -1)))
        return functional.gelu(self.proj2(hidden))

    def _average(self, x: Tensor, alpha: float) -> Tensor:
        value, values = torch.zeros_like(x[:, 0]), []
        for t in range(x.shape[1]):
            value = alpha * value + (1 - alpha) * x[:, t]
            values.append(value)
        return torch.stack(values, 1)


class BehaviorHeads(nn.Module):
    """Code -> saccade gate [B, T, 1], velocity [B, T, 2], gain and offset [B, T, L, M]."""

    def __init__(self, n_levels: int, n_pairs: int, width: int) -> None:
        """Makes two dense layers and four heads."""
        super().__init__()
        self.shape = (n_levels, n_pairs)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)
        self.head_q, self.head_veff = nn.Linear(width, 1), nn.Linear(width, 2)
        self.head_gam, self.head_rho = (nn.Linear(width, n_levels * n_pairs) for _ in range(2))

    def forward(self, code: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns q, v, gamma, rho."""
        hidden = functional.relu(self.fc2(functional.relu(self.fc1(code))))
        maps = (*code.shape[:2], *self.shape)
        gain = 1 + functional.softplus(self.head_gam(hidden)).view(maps)
        offset = MAX_OFFSET * self.head_rho(hidden).tanh().view(maps)
        return self.head_q(hidden).sigmoid(), MAX_VELOCITY * self.head_veff(hidden).tanh(), gain, offset


class Modulator(nn.Module):
    """Gaze encoder and heads under the names of the weights."""

    def __init__(self, n_levels: int, n_pairs: int, width: int, dt: float) -> None:
        """Makes both parts."""
        super().__init__()
        self.gaze_encoder = GazeEncoder(width, dt)
        self.beh_encoder = BehaviorHeads(n_levels, n_pairs, width)


class Dynamics(nn.Module):
    """Each frame alone: amplitude relaxed once, pose turned once."""

    def __init__(self, n_levels: int, n_pairs: int, dt: float, rates: tuple[float, float], f0: float) -> None:
        """Makes rates, resting amplitudes and wave vectors."""
        super().__init__()
        self.dt = dt
        self.lambda_fix, self.lambda_sac = (nn.Parameter(torch.tensor(rate)) for rate in rates)
        self.a_bar = nn.Parameter(torch.zeros(n_levels, n_pairs))
        angle = math.pi * torch.arange(n_pairs) / n_pairs
        octave = f0 * 0.5 ** torch.arange(n_levels)
        self.register_buffer("kxy", octave[:, None, None] * torch.stack([angle.cos(), angle.sin()], -1))

    def forward(self, level: int, amplitude: Tensor, pose: Tensor, behavior: tuple) -> tuple[Tensor, Tensor]:
        """Moves A [B, M, T, h, w] and U [B, M, 2, T, h, w]."""
        q, velocity, gain, offset = behavior
        rate = ((1 - q) * self.lambda_fix + q * self.lambda_sac)[..., 0]
        decay = torch.exp(-rate * self.dt)[:, None, :, None, None]
        rest = self.a_bar[level][None, :, None, None, None]
        turn = gain[:, :, level] * (velocity @ self.kxy[level].T) * self.dt + offset[:, :, level]
        cosine, sine = (part.transpose(1, 2)[..., None, None] for part in (turn.cos(), turn.sin()))
        even, odd = pose.unbind(2)
        turned = torch.stack([cosine * even - sine * odd, sine * even + cosine * odd], 2)
        return rest + (amplitude - rest) * decay, turned


class Summarizer(nn.Module):
    """Last, two averages, derivative and pose energy over time."""

    def __init__(self, alphas: tuple[float, float]) -> None:
        """Makes the logits of the decays."""
        super().__init__()
        fast, slow = (math.log(alpha / (1 - alpha)) for alpha in alphas)
        self.alpha_fast_logit, self.alpha_slow_logit = (nn.Parameter(torch.tensor(x)) for x in (fast, slow))

    def forward(self, amplitude: Tensor, pose: Tensor) -> Tensor:
        """[B, M, T, h, w] and [B, M, 2, T, h, w] -> [B, 5 M, h, w]."""
        averages = []
        for logit in (self.alpha_fast_logit, self.alpha_slow_logit):
            alpha, value = logit.sigmoid(), torch.zeros_like(amplitude[:, :, 0])
            for t in range(amplitude.shape[2]):
                value = alpha * value + (1 - alpha) * amplitude[:, :, t]
            averages.append(value)
        last = amplitude[:, :, -1]
        derivative = last - amplitude[:, :, -2] if amplitude.shape[2] > 1 else torch.zeros_like(last)
        now, before = pose[:, :, :, -1], pose[:, :, :, max(pose.shape[3] - 3, 0)]
        component = (now**2 + ((now - before) / 2) ** 2).clamp_min(POWER_FLOOR)
        energy = component.sum(2).clamp_min(POWER_FLOOR).sqrt()
        return torch.cat([last, *averages, derivative, energy], 1)


class Recurrent(nn.Module):
    """Dynamics and summaries under the names of the weights."""

    def __init__(self, dynamics: Any, summarizer: Summarizer) -> None:
        """Keeps both parts; without gaze there are no dynamics."""
        super().__init__()
        self.dynamics: Any = dynamics
        self.summarizer = summarizer


class LevelReadout(nn.Module):
    """Mixes channels into N maps, weighs each with a Gaussian, sums."""

    def __init__(self, n_features: int, n_units: int) -> None:
        """Makes weights and Gaussians that spread over a part of the level."""
        super().__init__()
        self.features = nn.Conv2d(n_features, n_units, 1, bias=False)
        nn.init.normal_(self.features.weight, std=1e-4)
        self.mu = nn.Parameter(0.1 * torch.randn(n_units, 2))
        self.logsx, self.logsy = (nn.Parameter(torch.full((n_units,), math.log(0.3))) for _ in range(2))
        self.rho = nn.Parameter(torch.zeros(n_units))

    def forward(self, x: Tensor) -> Tensor:
        """[B, D, h, w] -> [B, N]."""
        y, z = (torch.linspace(-1, 1, size, dtype=x.dtype) for size in x.shape[2:])
        across = (z[None, None] - self.mu[:, 0, None, None]) / (self.logsx.exp() + 1e-6)[:, None, None]
        down = (y[None, :, None] - self.mu[:, 1, None, None]) / (self.logsy.exp() + 1e-6)[:, None, None]
        r = self.rho.tanh()[:, None, None]
        window = torch.exp(-(across**2 + down**2 - 2 * r * across * down) / (2 * (1 - r**2 + 1e-6)))
        return (self.features(x) * window).sum((2, 3))


class Readout(nn.Module):
    """The readouts of all levels and a bias."""

    def __init__(self, n_levels: int, n_features: int, n_units: int) -> None:
        """Makes one readout a level."""
        super().__init__()
        self.readouts = nn.ModuleList(LevelReadout(n_features, n_units) for _ in range(n_levels))
        self.bias = nn.Parameter(torch.full((n_units,), -2.0))


class TorchPolar(nn.Module):
    """Stimulus [B, 1, T, H, W] and gaze [B, T, 2] -> log rates [B, N] of the newest bin."""

    def __init__(
        self,
        *,
        n_levels: int = 4,
        n_pairs: int = 64,
        kernel_size: int = 15,
        n_units: int = 100,
        behavior: bool = True,
        dt: float = 1 / 240,
        rates: tuple[float, float] = (5.0, 20.0),
        alphas: tuple[float, float] = (0.8, 0.9),
    ) -> None:
        """Makes all parts; without `behavior` the gaze does nothing."""
        super().__init__()
        self.convnet = nn.Module()
        self.convnet.qfb = FilterBank(n_pairs, kernel_size)
        if behavior:
            self.modulator = Modulator(n_levels, n_pairs, 128, dt)
        dynamics = Dynamics(n_levels, n_pairs, dt, rates, 0.15) if behavior else None
        self.recurrent = Recurrent(dynamics, Summarizer(alphas))
        self.readouts = nn.ModuleList([Readout(n_levels, N_SUMMARIES * n_pairs, n_units)])
        self.n_levels, self.behavior = n_levels, behavior

    def forward(self, stimulus: Tensor, gaze: Tensor) -> Tensor:
        """Computes every map of every frame, then summarises, mixes and pools."""
        batch, _, n_frames = stimulus.shape[:3]
        behavior = None
        if self.behavior:
            behavior = self.modulator.beh_encoder(self.modulator.gaze_encoder(gaze))
        frames = stimulus.transpose(1, 2).flatten(0, 1)
        rates = self.readouts[0].bias.expand(batch, -1)
        for level, image in enumerate(pyramid(frames, self.n_levels)):
            maps = [part.unflatten(0, (batch, n_frames)).transpose(1, 2) for part in self.convnet.qfb(image)]
            amplitude = (maps[0] ** 2 + maps[1] ** 2).clamp_min(POWER_FLOOR).sqrt()
            pose = torch.stack(maps, 2) / amplitude[:, :, None]
            if behavior is not None:
                amplitude, pose = self.recurrent.dynamics(level, amplitude, pose, behavior)
            features = self.recurrent.summarizer(amplitude, pose)
            rates = rates + self.readouts[0].readouts[level](features)
        return rates
