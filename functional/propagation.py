"""Local matching: the one operation behind training and inference (Sections 3.1 and 3.3 of the paper).

This file checks the arguments, turns every variant (metric, temperature, border) into plain dot products
with zero padding, and hands over to a backend. A backend is one file with two functions:

    correlate(query [B,C,H,W], padded [B,C,H+2R,W+2R], radius) -> [B,(2R+1)^2,H,W]
    attend(query [B,C,H,W], padded [B,M,C,H+2R,W+2R], values [B,M,K,H+2R,W+2R], radius, top_k) -> [B,K,H,W]

and, where it has a faster way for label maps, ``attend_labels`` (see functional/tiled.py).
"""

import math

import torch
import torch.nn.functional as F

from functional import dense, tiled

BACKENDS = {"dense": dense, "tiled": tiled}


def available_backends() -> list[str]:
    """Names that ``backend=`` takes, besides "auto"."""
    return list(BACKENDS)


def _backend(name: str):
    if name == "auto":
        name = "tiled"
    if name not in BACKENDS:
        raise ValueError(f"unknown backend {name!r}; there are auto, {', '.join(BACKENDS)}")
    return BACKENDS[name]


def _pad(x: torch.Tensor, radius: int, value: float = 0) -> torch.Tensor:
    return F.pad(x, (radius, radius, radius, radius), value=value)


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
    return _backend(backend).correlate(query, _pad(memory, radius), radius)


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
    query, memory = as_dot_product(query, memory, radius, border, metric, temperature)
    top_k = _usable_top_k(top_k, frames, radius)
    return _backend(backend).attend(query, memory, _pad(values, radius), radius, top_k)


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
    backend: str = "auto",
) -> torch.Tensor:
    """:func:`propagate` for label maps of one video, without ever making them one-hot.

    Args:
        query: [C, H, W] floating.
        memory: [M, C, H, W] of the same dtype.
        labels: int16 [M, H, W], 0..num_labels-1, or -1 where a position has no label: it came from outside
            the frame, and is treated like one that is outside (value 0, or left out under "exclude").
        num_labels: K, the background included.
        radius, top_k, border, metric, temperature, backend: as in :func:`propagate`.

    Returns:
        float [K, H, W]: each label's share of the softmax.
    """
    module = _backend(backend)
    left_out = (labels < 0)[None, :, None] if border == "exclude" else None
    query, memory = as_dot_product(query[None], memory[None], radius, border, metric, temperature, left_out)
    top_k = _usable_top_k(top_k, memory.shape[1], radius)
    labels = _pad(labels, radius, value=-1)
    if hasattr(module, "attend_labels"):
        return module.attend_labels(query[0], memory[0], labels, num_labels, radius, top_k, border == "exclude")
    values = F.one_hot(labels.long() + 1, num_labels + 1)[..., 1:].permute(0, 3, 1, 2)
    return module.attend(query, memory, values[None].to(query.dtype), radius, top_k)[0]


def as_dot_product(query, memory, radius, border, metric, temperature, left_out=None):
    """Scale, extend and pad the features so that every variant is a dot product over a padded memory.

    "l2" adds one channel: -|q-k|^2 = 2qk - |k|^2 - |q|^2, of which the last term is the same for all
    candidates and drops out of the softmax. "exclude" adds one that is hugely negative outside the frame.

    Args:
        query: [B, C, H, W]; memory: [B, M, C, H, W].
        left_out: bool [B, M, 1, H, W], more positions that "exclude" leaves out.

    Returns:
        query [B, C', H, W] and memory [B, M, C', H+2R, W+2R].
    """
    _check_radius(radius)
    if border not in ("zero", "exclude"):
        raise ValueError(f'border must be "zero" or "exclude", not {border!r}')
    if metric not in ("dot", "l2"):
        raise ValueError(f'metric must be "dot" or "l2", not {metric!r}')
    temperature = math.sqrt(query.shape[1]) if temperature is None else temperature
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, not {temperature}")
    query = query / temperature
    one = torch.full_like(query[:, :1], 1)
    if metric == "l2":
        norms = memory.square().sum(2, keepdim=True)
        query = torch.cat((2 * query, -one / temperature), 1)
        memory = torch.cat((memory, norms), 2)
    if border == "zero":
        return query, _pad(memory, radius)
    outside = torch.finfo(query.dtype).min / 8
    bias = torch.zeros_like(memory[:, :, :1])
    if left_out is not None:
        bias = bias.masked_fill(left_out, outside)
    memory = torch.cat((_pad(memory, radius), _pad(bias, radius, value=outside)), 2)
    return torch.cat((query, one), 1), memory


def _check_radius(radius: int) -> None:
    if radius < 0:
        raise ValueError(f"radius must be 0 or more, not {radius}")


def _usable_top_k(top_k, frames, radius):
    if top_k is None:
        return None
    if top_k < 1:
        raise ValueError(f"top_k must be 1 or more, or None for all, not {top_k}")
    return min(top_k, frames * (2 * radius + 1) ** 2)
