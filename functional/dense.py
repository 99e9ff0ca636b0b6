"""The reference backend: every displaced copy of the memory, spelled out. Obvious, slow, and large:
(2R+1)^2 times the features in memory. The other backends are tested against it."""

import torch
import torch.nn.functional as F


def _unfold(padded: torch.Tensor, radius: int) -> torch.Tensor:
    """[B, C, H+2R, W+2R] -> [B, C, (2R+1)^2, H, W]: the neighbourhood of every position."""
    batch, channels, height, width = padded.shape
    side = 2 * radius + 1
    columns = F.unfold(padded, side)
    return columns.view(batch, channels, side * side, height - 2 * radius, width - 2 * radius)


def correlate(query: torch.Tensor, padded: torch.Tensor, radius: int) -> torch.Tensor:
    """See :func:`functional.local_correlation`; ``padded`` is the memory with R positions around it."""
    return torch.einsum("bchw,bcnhw->bnhw", query, _unfold(padded, radius))


def attend(query, padded, values, radius, top_k, locality):
    """See :func:`functional.propagate`; memory and values come with R positions around them."""
    frames = padded.shape[1]
    scores = torch.cat([correlate(query, padded[:, m], radius) for m in range(frames)], dim=1)
    offset = torch.arange(-radius, radius + 1, device=scores.device).square()
    distance = (offset[:, None] + offset).flatten().repeat(frames)
    scores = scores - locality * distance[:, None, None]
    candidates = torch.cat([_unfold(values[:, m], radius) for m in range(frames)], dim=2)
    if top_k is not None:
        scores, index = scores.topk(top_k, dim=1)
        candidates = candidates.gather(2, index[:, None].expand(-1, values.shape[2], -1, -1, -1))
    return torch.einsum("bnhw,bknhw->bkhw", scores.softmax(1).to(values.dtype), candidates)
