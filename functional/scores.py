"""What backends share: every variant of the score as a plain dot product, and what colours do to a vote."""

from typing import NamedTuple

import torch
import torch.nn.functional as F

OTHER_COLOUR = 16.0  # differences of colour above it are all alike, so that some vote is left whatever the colours are


class Matching(NamedTuple):
    """How candidates are scored and chosen, checked: see :func:`functional.propagate`."""

    radius: int
    top_k: int
    border: str
    metric: str
    temperature: float
    locality: float


def pad(x: torch.Tensor, radius: int, value: float = 0) -> torch.Tensor:
    """[..., H, W] -> [..., H+2R, W+2R]."""
    return F.pad(x, (radius, radius, radius, radius), value=value)


def warped(memory: torch.Tensor, source: torch.Tensor | None, unlabelled: torch.Tensor) -> torch.Tensor:
    """Memory [M, C, H, W] from where the warp takes it, int64 [M, H*W], and 0 where bool [M, 1, H, W] says so."""
    if source is not None:
        memory = memory.flatten(2).gather(2, source[:, None].expand(-1, memory.shape[1], -1)).view_as(memory)
    return memory.masked_fill(unlabelled, 0)


def colour_factor(difference: torch.Tensor) -> torch.Tensor:
    """What a vote is worth, by the difference [..., D] of its colours."""
    return (-difference.square().sum(-1).clamp_max(OTHER_COLOUR)).exp()


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
    query = query / temperature
    one = torch.full_like(query[:, :1], 1)
    if metric == "l2":
        norms = memory.square().sum(2, keepdim=True)
        query = torch.cat((2 * query, -one / temperature), 1)
        memory = torch.cat((memory, norms), 2)
    if border == "zero":
        return query, pad(memory, radius)
    outside = torch.finfo(query.dtype).min / 8
    bias = torch.zeros_like(memory[:, :, :1])
    if left_out is not None:
        bias = bias.masked_fill(left_out, outside)
    memory = torch.cat((pad(memory, radius), pad(bias, radius, value=outside)), 2)
    return torch.cat((query, one), 1), memory
