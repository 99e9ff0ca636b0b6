"""Local matching: the one operation behind training and inference (Sections 3.1 and 3.3 of the paper).

This file checks the arguments, turns every variant (metric, temperature, border) into plain dot products
with zero padding, and hands over to a backend. A backend is one file with three functions:

    correlate(query [B,C,H,W], padded [B,C,H+2R,W+2R], radius) -> [B,(2R+1)^2,H,W]
    attend(query [B,C,H,W], padded [B,M,C,H+2R,W+2R], values [B,M,K,H+2R,W+2R], radius, top_k, locality)
        -> [B,K,H,W]
    attend_labels, the same for label maps: see functional/tiled.py

"auto" takes "triton" on CUDA, "compiled" for label maps on a CPU, and "tiled" else.
"""

import functools
import logging
import math

import torch
import torch.nn.functional as F

from functional import compiled, dense, tiled
from functional.labels import uniform_neighbourhoods
from functional.scores import Matching, as_dot_product, pad
from functional.warp import rounded_indices

try:
    from functional import triton_backend
except ImportError:  # PyTorch brings Triton on Linux, but not everywhere
    triton_backend = None

log = logging.getLogger(__name__)

BACKENDS = {"dense": dense, "tiled": tiled, "compiled": compiled}
if triton_backend is not None:
    BACKENDS["triton"] = triton_backend


def available_backends() -> list[str]:
    """Names that ``backend=`` takes, besides "auto"."""
    return list(BACKENDS)


def _backend(name: str, device: torch.device, label_maps: bool = False):
    if name == "auto":
        name = _best(device.type, label_maps)
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


@functools.cache
def _best(device: str, label_maps: bool) -> str:
    """The backend that "auto" means; that a better one is missing is logged, once."""
    if device == "cuda":
        if triton_backend is not None:
            return "triton"
        log.warning("Triton is not installed: matching on CUDA in plain PyTorch (backend tiled), which is slower")
    return "compiled" if device == "cpu" and label_maps else "tiled"


def local_correlation(query: torch.Tensor, memory: torch.Tensor, radius: int, *, backend: str = "auto") -> torch.Tensor:
    """Dot products of every query position with the memory positions around it.

    Args:
        query: [B, C, H, W] floating.
        memory: [B, C, H, W] of the same dtype.
        radius: R >= 0, in positions.

    Returns:
        [B, (2R+1)^2, H, W], row-major over the displacement (dy, dx) from (-R, -R) to (R, R); 0 where the
        displaced position is outside the frame; not scaled. Differentiable in both inputs.
    """
    if query.dim() != 4 or query.shape != memory.shape:
        raise ValueError(
            f"local_correlation: query {tuple(query.shape)} and memory {tuple(memory.shape)} must both be [B, C, H, W]"
        )
    _check_radius(radius)
    return _backend(backend, query.device).correlate(query, pad(memory, radius), radius)


def propagate(
    query: torch.Tensor,
    memory: torch.Tensor,
    values: torch.Tensor,
    *,
    radius: int,
    top_k: int | None = None,
    border: str = "zero",
    metric: str = "dot",
    temperature: float | None = None,
    locality: float = 0.0,
    backend: str = "auto",
) -> torch.Tensor:
    """Give every query position the values of the memory positions around it that look like it.

    The candidates of a position p are the (2R+1)^2 positions around p in each of the M memory frames. Their
    scores are divided by the temperature and go through one softmax (over the ``top_k`` highest of all
    frames together, if given); the output is the values' mean under it.

    Args:
        query: [B, C, H, W] floating.
        memory: [B, M, C, H, W] of the same dtype.
        values: [B, M, K, H, W] floating: colours in training, one-hot labels in inference.
        radius: R >= 0, in positions.
        top_k: how many candidates enter the softmax; None means all.
        border: "zero": positions outside the frame take part with zero features (so score 0 under "dot")
            and value 0, as in the paper; "exclude": they are left out.
        metric: "dot", or "l2" for the negative squared distance.
        temperature: > 0; None means sqrt(C).
        locality: >= 0; a candidate's score loses this times its squared distance in positions. The paper's is 0.
        backend: "auto" or one of :func:`available_backends`.

    Returns:
        [B, K, H, W] in the dtype of ``values``. Differentiable in all three inputs when ``top_k`` is None.
    """
    batch, channels, height, width = query.shape
    frames = memory.shape[1]
    if memory.shape != (batch, frames, channels, height, width):
        raise ValueError(f"propagate: query {tuple(query.shape)} does not fit memory {tuple(memory.shape)}")
    if values.dim() != 5 or values.shape[:2] != memory.shape[:2] or values.shape[-2:] != (height, width):
        raise ValueError(f"propagate: values {tuple(values.shape)} do not fit memory {tuple(memory.shape)}")
    temperature = _check(radius, border, metric, temperature, channels)
    query, memory = as_dot_product(query, memory, radius, border, metric, temperature)
    top_k = _usable_top_k(top_k, frames * (2 * radius + 1) ** 2)
    return _backend(backend, query.device).attend(query, memory, pad(values, radius), radius, top_k, locality)


def propagate_labels(
    query: torch.Tensor,
    memory: torch.Tensor,
    labels: torch.Tensor,
    num_labels: int,
    *,
    radius: int,
    top_k: int | None = None,
    border: str = "zero",
    metric: str = "dot",
    temperature: float | None = None,
    locality: float = 0.0,
    flow: torch.Tensor | None = None,
    colours: tuple[torch.Tensor, torch.Tensor] | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """:func:`propagate` for label maps of one video, which are never made one-hot.

    Where all candidates of a position, in every memory frame, carry one label, that label is the answer
    whatever the scores are; only the rest, a band around the objects' edges, is computed.

    Args:
        query: [C, H, W] floating.
        memory: [M, C, H, W] of the same dtype.
        labels: int16 [M, f*H, f*W], 0..num_labels-1, f a whole number: each position carries f x f labels, which
            vote for the same places of the query's position. -1 where a position has no labels: it came
            from outside the frame, and is treated like one that is outside (value 0, or left out under "exclude").
        num_labels: K, the background included.
        radius, top_k, border, metric, temperature, locality, backend: as in :func:`propagate`.
        flow: [M, 2, H, W] query -> memory, (dx, dy) in positions, or None. Features and labels are first
            warped by it, rounded to whole positions (:func:`functional.warp_rounded`).
        colours: of the query [D, f*H, f*W] and of the memory [M, D, f*H, f*W], in any unit, or None. A vote for a
            place is worth exp(-d) of what it is without, d the squared distance of the two places' colours or
            :data:`functional.scores.OTHER_COLOUR`, whichever is less.

    Returns:
        float [K, f*H, f*W]: each label's share of the softmax.
    """
    module = _backend(backend, query.device, label_maps=True)
    temperature = _check(radius, border, metric, temperature, query.shape[0])
    fine = labels.shape[-1] // query.shape[-1]
    most = len(memory) * (2 * radius + 1) ** 2
    matching = Matching(radius, _usable_top_k(top_k, most) or most, border, metric, temperature, locality)
    source, labels = None, F.pixel_unshuffle(labels[:, None], fine)
    if flow is not None:
        source, inside = rounded_indices(flow)
        moved = labels.flatten(2).gather(2, source[:, None].expand(-1, fine * fine, -1))
        labels = torch.where(inside[:, None], moved, -1).view_as(labels)
    certain, label = uniform_neighbourhoods(labels.flatten(0, 1), radius, skip_unlabelled=border == "exclude")
    sure = F.one_hot(label.clamp_min(0).long(), num_labels).to(query.dtype).permute(2, 0, 1)
    sure = sure.repeat_interleave(fine, 1).repeat_interleave(fine, 2)
    if certain.all():
        return sure
    if colours is None:
        colours = sure.new_zeros(1, *sure.shape[1:]), sure.new_zeros(len(memory), 1, *sure.shape[1:])
    places = tuple(F.pixel_unshuffle(c, fine).unflatten(-3, (-1, fine * fine)).transpose(-3, -4) for c in colours)
    solved = module.attend_labels(query, memory, labels, source, num_labels, ~certain, places, matching)
    certain = certain.repeat_interleave(fine, 0).repeat_interleave(fine, 1)
    return torch.where(certain, sure, F.pixel_shuffle(solved, fine)[:, 0])


def _check(radius: int, border: str, metric: str, temperature: float | None, channels: int) -> float:
    """The temperature to use."""
    _check_radius(radius)
    if border not in ("zero", "exclude"):
        raise ValueError(f'border must be "zero" or "exclude", not {border!r}')
    if metric not in ("dot", "l2"):
        raise ValueError(f'metric must be "dot" or "l2", not {metric!r}')
    temperature = math.sqrt(channels) if temperature is None else temperature
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    return temperature


def _check_radius(radius: int) -> None:
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, not {radius}")


def _usable_top_k(top_k: int | None, most: int) -> int | None:
    if top_k is None:
        return None
    if top_k < 1:
        raise ValueError(f"top_k must be 1 or more, or None for all, not {top_k}")
    return min(top_k, most)
