"""One frame of the recurrent dynamics of quadrature pairs, of a few pixels that stay in the cache; see `pair_dynamics`.

XLA makes a loop of every result, and three things make such loops on CPUs several times slower than they have to be:
what several loops read is computed again in each of them, unless it is a root or a quotient; a loop that writes its
result in the place of one of its operands is not computed in vectors; and what a scan hands on is copied. So what
several results need is put into rows of a work array, in place: that is stored once and shares no place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from polarjax.ops import dynamics
from polarjax.ops.inverse_root import inverse_root
from polarjax.ops.polar_decomposition import AMPLITUDE_FLOOR, decompose
from polarjax.ops.summaries import pose_energy

SHOWN = ("energy", "even", "odd")
FRAMES_BEFORE = 2
# frames in a ring that is written before what is two frames older is read: XLA copies it where it is read first
N_RING = FRAMES_BEFORE + 1
# maps of a frame that are kept: a, z and u
N_KEPT = 5
# and before a chunk: u of two frames ago and all of the last
N_SAVED = 2 + N_KEPT
# what is kept of so many frames of a band stays in the third cache
CHUNK_FRAMES = 16


class Section(NamedTuple):
    """Chunks of frames of which the same is computed.

    Attributes:
      start: first frame.
      n_chunks, size: how many chunks, of how many frames each.
      names: of the maps that are pooled.
      needs_unit: whether u_t is needed, for these maps or for the energy of later ones.
      first_chunk: number of the first chunk.
    """

    start: int
    n_chunks: int
    size: int
    names: tuple[str, ...]
    needs_unit: bool
    first_chunk: int

    @property
    def n_frames(self) -> int:
        """Frames of all chunks."""
        return self.n_chunks * self.size

    def chunks(self, x: Shaped[Array, "T *S"]) -> Shaped[Array, "_ _ *S"]:
        """Cuts frames of a movie into those of the chunks."""
        frames = jax.lax.slice_in_dim(x, self.start, self.start + self.n_frames)
        return frames.reshape(self.n_chunks, self.size, *x.shape[1:])


@dataclasses.dataclass(frozen=True)
class PairForm:
    """What is computed.

    Attributes:
      pose_floor: of `decompose`.
      start: 'rest' or 'drive', where a_{-1} is.
      pooled: the maps that are pooled; 'last', the amplitude of all frames, before those of `SHOWN`.
      n_shown: the maps of `SHOWN` are those of the last n frames, at most T - 2: the energy looks two frames back.
      keeps_responses: for the gradient of a band; False where they are made in less time than stored and loaded.
    """

    pose_floor: float
    start: str
    pooled: tuple[str, ...]
    n_shown: int
    keeps_responses: bool

    @property
    def looks_back(self) -> bool:
        """Whether the energy is asked for."""
        return "energy" in self.pooled

    def sections(self, n_frames: int) -> list[Section]:
        """Returns the sections of a movie."""
        early, first = self.pooled[: self.pooled.count("last")], n_frames - self.n_shown
        before = first - FRAMES_BEFORE if self.looks_back else first
        parts = [
            (0, before, early, False),
            (before, first, early, True),
            (first, n_frames, self.pooled, True),
        ]
        if early == self.pooled:
            parts = [(0, n_frames, early, False)]
        sections: list[Section] = []
        for start, end, names, needs_unit in parts:
            size = -(-(end - start) // max(-(-(end - start) // CHUNK_FRAMES), 1))
            while start < end:
                size = min(size, end - start)
                first_chunk = sections[-1].first_chunk + sections[-1].n_chunks if sections else 0
                count = (end - start) // size
                sections.append(Section(start, count, size, names, needs_unit, first_chunk))
                start += count * size
        return sections


def halves(responses: Float[Array, "*T R p"]) -> tuple[Float[Array, "*T M p"], Float[Array, "*T M p"]]:
    """Returns the even and the odd responses."""
    n_pairs = responses.shape[-2] // 2
    return responses[..., :n_pairs, :], responses[..., n_pairs:, :]


def turn_filters(filters: Any) -> Any:
    """Transposes all matrices."""
    return jax.tree.map(jnp.transpose, filters)


def pull_back(
    respond: Callable[[Any, Any], Float[Array, "R p"]], turned: Any, frame: Any, slope: Float[Array, "R p"]
) -> tuple[Any, Any]:
    """Returns the slopes of turned filters and of one frame of a band from those of the responses.

    Turned, as the product with R, not the kernels' size, columns takes four fifths of the time of the other one.
    """
    return jax.vjp(lambda turned, frame: respond(turn_filters(turned), frame), turned, frame)[1](slope)


def rows(work: Float[Array, "_ p"], index: int, n_pairs: int) -> Float[Array, "M p"]:
    """Returns one map of a work array."""
    return jax.lax.slice_in_dim(work, index * n_pairs, (index + 1) * n_pairs)


def take(work: Float[Array, "_ p"], first: int | Array, count: int, n_pairs: int) -> Float[Array, "_ p"]:
    """Returns maps of a work array, from its map `first` on."""
    return jax.lax.dynamic_slice_in_dim(work, first * n_pairs, count * n_pairs)


def put(
    work: Float[Array, "_ p"], maps: Iterable[Float[Array, "_ p"]], first: int | Array = 0
) -> Float[Array, "_ p"]:
    """Writes maps into a work array, from its map `first` on."""
    for index, x in enumerate(maps):
        work = jax.lax.dynamic_update_slice(work, x, ((first + index) * len(x), 0))
    return work


def maps_of(
    names: tuple[str, ...], a: Array, unit: tuple[Array, Array], before: tuple[Array, Array]
) -> list[Array]:
    """Returns the maps that are pooled, from a_t, u_t and u_{t-2}."""
    made = {
        "last": lambda: a,
        "energy": lambda: pose_energy(unit, before),
        "even": lambda: a * unit[0],
        "odd": lambda: a * unit[1],
    }
    return [made[name]() for name in names]


def inverse_length(pose: tuple[Float[Array, "M p"], Float[Array, "M p"]]) -> Float[Array, "M p"]:
    """Returns what `safe_normalize` multiplies with: 1/|z|."""
    return inverse_root(jnp.maximum(pose[0] * pose[0] + pose[1] * pose[1], AMPLITUDE_FLOOR**2))


def starting(
    form: PairForm, respond: Callable, filters: Any, bands: Any, rest: Float[Array, " M"]
) -> Float[Array, "_ p"]:
    """Returns the state before the first frame: a, and z of two maps."""
    responses = respond(filters, jax.tree.map(lambda x: x[0], bands))
    amplitude, *pose = decompose(*halves(responses), pose_floor=form.pose_floor)
    before = amplitude if form.start == "drive" else jnp.broadcast_to(rest[:, None], amplitude.shape)
    return jnp.concatenate([before, *pose])


def advance(
    form: PairForm,
    rest: Float[Array, " M"],
    responses: Float[Array, "R p"],
    moves: tuple,
    state: Float[Array, "_ p"],
    work: Float[Array, "_ p"],
) -> tuple[Float[Array, "_ p"], tuple[Float[Array, "M p"], Float[Array, "M p"]]]:
    """Writes a_t and z_t into a work array, and returns it and u_t.

    Args:
      moves: decay g, decay of the pose h, drive gain k [1, 1], and cosine and sine [M, 1] of what R_t turns by.
      state: a_{t-1} and z_{t-1}.
    """
    (decay, pose_decay, gain, turn), n_pairs = moves, len(rest)
    amplitude, even, odd = decompose(*halves(responses), pose_floor=form.pose_floor)
    whole = jnp.broadcast_to(rest[:, None], amplitude.shape)
    cosine, sine = (jnp.broadcast_to(x, amplitude.shape) for x in turn)
    a = dynamics.drive_amplitude(rows(state, 0, n_pairs), amplitude, whole, decay, gain)
    z = (rows(state, 1, n_pairs), rows(state, 2, n_pairs))
    work = put(work, (a, *dynamics.drive_pose(z, (even, odd), (cosine, sine), pose_decay)))
    z = (rows(work, 1, n_pairs), rows(work, 2, n_pairs))
    inverse = inverse_length(z)
    return work, (z[0] * inverse, z[1] * inverse)
