"""Warping of feature and label maps by optical flow."""

import torch
import torch.nn.functional as F


def warp(x: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Sample ``x`` bilinearly where ``flow`` points to.

    Args:
        x: [B, C, H, W], any floating dtype.
        flow: [B, 2, H, W], (dx, dy) in positions of ``x``, from the output to ``x``: the output at
            position p is x(p + flow(p)).

    Returns:
        [B, C, H, W] in the dtype of ``x``; what lies outside of ``x`` counts as 0. Differentiable in both.
    """
    if x.dim() != 4 or flow.shape != (x.shape[0], 2, *x.shape[-2:]):
        raise ValueError(f"warp: x {tuple(x.shape)} needs a flow [B, 2, H, W], not {tuple(flow.shape)}")
    height, width = x.shape[-2:]
    flow = flow.to(x.dtype)
    columns = torch.arange(width, device=x.device, dtype=x.dtype) + flow[:, 0]
    rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None] + flow[:, 1]
    # grid_sample wants -1..1 from the centre of the first position to the centre of the last
    grid = torch.stack((2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1), dim=-1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def rounded_indices(flow: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a flow rounded to whole positions points to.

    Args:
        flow: [M, 2, H, W], (dx, dy) in positions. It is clamped to +-width and +-height (Section 3.3).

    Returns:
        ``index`` int64 [M, H*W] into a flattened map, and ``inside`` bool [M, H*W]; the index is 0
        where the flow leaves the frame.
    """
    height, width = flow.shape[-2:]
    dx = flow[:, 0].round().clamp(-width, width).long()
    dy = flow[:, 1].round().clamp(-height, height).long()
    columns = torch.arange(width, device=flow.device) + dx
    rows = torch.arange(height, device=flow.device)[:, None] + dy
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = torch.where(inside, rows * width + columns, 0)
    return index.flatten(1), inside.flatten(1)


def warp_rounded(x: torch.Tensor, flow: torch.Tensor, fill: float = 0) -> torch.Tensor:
    """Warp by whole positions, the paper's motion-aware alignment: exact, for any dtype.

    Args:
        x: [M, C, H, W], any dtype.
        flow: [M, 2, H, W], (dx, dy) in positions, from the output to ``x``.
        fill: what the output holds where the flow leaves the frame.

    Returns:
        [M, C, H, W] in the dtype of ``x``.
    """
    index, inside = rounded_indices(flow)
    gathered = x.flatten(2).gather(2, index[:, None].expand(-1, x.shape[1], -1))
    return torch.where(inside[:, None], gathered, fill).view_as(x)
