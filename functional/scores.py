"""Every variant of the score (metric, temperature, border) as a plain dot product over a padded memory."""

import torch
import torch.nn.functional as F


def pad(x: torch.Tensor, radius: int, value: float = 0) -> torch.Tensor:
    """[..., H, W] -> [..., H+2R, W+2R]."""
    return F.pad(x, (radius, radius, radius, radius), value=value)


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
