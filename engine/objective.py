"""The self-supervised task (Section 3.1): a colour channel that is missing, and how far its reconstruction is off."""

import torch
import torch.nn.functional as F

from functional import subsample

COLOUR_GAIN = 20.0  # the loss compares colour values times this


def reconstruct(model: torch.nn.Module, frames: torch.Tensor, channel: int) -> torch.Tensor:
    """Reconstruct one colour channel of the last frame from the others.

    Args:
        model: called as :meth:`models.mamp.MAMP.forward`.
        frames: [B, M+1, 3, H, W] Lab, the query last.
        channel: 1 (a) or 2 (b), set to 0 in every input; the rest is scaled by 3/2 in its place.

    Returns:
        [B, 1, H, W].
    """
    kept = torch.full((3, 1, 1), 1.5, device=frames.device)
    kept[channel] = 0
    seen = frames * kept
    colour = subsample(frames[:, :-1, channel : channel + 1])
    coarse = model(seen[:, -1], seen[:, :-1], colour)
    return F.interpolate(coarse, size=frames.shape[-2:], mode="bilinear", align_corners=False)


def colour_loss(reconstruction: torch.Tensor, frames: torch.Tensor, channel: int) -> torch.Tensor:
    """Smooth L1 between a reconstruction [B, 1, H, W] and the query's own channel, both times 20."""
    target = frames[:, -1, channel : channel + 1]
    return F.smooth_l1_loss(COLOUR_GAIN * reconstruction, COLOUR_GAIN * target)
