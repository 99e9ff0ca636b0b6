"""What the encoder is trained on (Section 3.1): a missing colour channel, and, our addition, the optical flow."""

import torch
import torch.nn.functional as F

from functional import subsample

COLOUR_GAIN = 20.0  # the loss compares colour values times this


def reconstruct(
    model: torch.nn.Module, frames: torch.Tensor, channel: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reconstruct one colour channel of the last frame from the others.

    Args:
        model: called as :meth:`models.mamp.MAMP.forward`.
        frames: [B, M+1, 3, H, W] Lab, the query last.
        channel: 1 (a) or 2 (b), set to 0 in every input; the rest is scaled by 3/2 in its place.

    Returns:
        The channel [B, 1, H, W], and the features of the query [B, C, H/4, W/4] and the memory [B, M, C, H/4, W/4].
    """
    kept = torch.full((3, 1, 1), 1.5, device=frames.device)
    kept[channel] = 0
    seen = frames * kept
    colour = subsample(frames[:, :-1, channel : channel + 1])
    coarse, query, memory = model(seen[:, -1], seen[:, :-1], colour)
    picture = F.interpolate(coarse, size=frames.shape[-2:], mode="bilinear", align_corners=False)
    return picture, query, memory


def colour_loss(reconstruction: torch.Tensor, frames: torch.Tensor, channel: int) -> torch.Tensor:
    """Smooth L1 between a reconstruction [B, 1, H, W] and the query's own channel, both times 20."""
    target = frames[:, -1, channel : channel + 1]
    return F.smooth_l1_loss(COLOUR_GAIN * reconstruction, COLOUR_GAIN * target)


def flow_loss(query: torch.Tensor, memory: torch.Tensor, matches: torch.Tensor, queries: int = 256) -> torch.Tensor:
    """Cross entropy of where the optical flow says that positions of the query were in the memory.

    Every position of the memory frame is a candidate, scored as in matching (dot product over sqrt(C)), so
    features must tell a position from all others that look alike, which colour alone does not ask of them.

    Args:
        query: [B, C, h, w]; memory: [B, M, C, h, w].
        matches: int64 [B, M, h*w], see :func:`datasets.correspondence.matches`; -1 counts for nothing.
        queries: how many positions of a frame are drawn for it.

    Returns:
        Scalar; 0 if no drawn position has a match.
    """
    batch, frames, channels = memory.shape[:3]
    count = min(queries, matches.shape[-1])
    drawn = torch.rand(batch, 1, matches.shape[-1]).topk(count).indices.to(query.device).expand(-1, frames, -1)
    asked = (
        query.flatten(2)[:, None].expand(-1, frames, -1, -1).gather(3, drawn[:, :, None].expand(-1, -1, channels, -1))
    )
    scores = asked.transpose(2, 3) @ memory.flatten(3) / channels**0.5
    truth = matches.gather(2, drawn).flatten()
    total = F.cross_entropy(scores.flatten(0, 2), truth, ignore_index=-1, reduction="sum")
    return total / (truth >= 0).sum().clamp_min(1)
