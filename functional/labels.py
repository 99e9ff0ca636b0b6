"""Label maps between the frame's resolution and the memory's (stride 4)."""

import torch
import torch.nn.functional as F

STRIDE = 4


def subsample(labels: torch.Tensor) -> torch.Tensor:
    """Labels [..., H, W] at the memory's resolution [..., ceil(H/4), ceil(W/4)]: every fourth pixel."""
    return labels[..., ::STRIDE, ::STRIDE]


def paint(prediction: torch.Tensor, annotation: torch.Tensor) -> torch.Tensor:
    """Label map [H, W] of the prediction with the non-zero part of the annotation over it."""
    return torch.where(annotation > 0, annotation, prediction)


def upsample_argmax(scores: torch.Tensor, factor: float) -> torch.Tensor:
    """The most probable label of every pixel; of equal ones the lowest.

    Bilinear, align_corners=False. A few labels at a time, so that 255 of them need no more memory than 8.

    Args:
        scores: [K, h, w] floating, 0 or more.
        factor: how many pixels a position is wide.

    Returns:
        uint8 [h * factor, w * factor], 0..K-1.
    """
    size = (round(scores.shape[-2] * factor), round(scores.shape[-1] * factor))
    best = scores.new_zeros(size)
    labels = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    present = scores.flatten(1).amax(1).nonzero()[:, 0]
    for few in present.split(8) if len(present) else ():
        fine = F.interpolate(scores[None, few], size=size, mode="bilinear", align_corners=False)[0]
        high, index = fine.max(0)
        better = high > best
        best = torch.where(better, high, best)
        labels = torch.where(better, few[index].to(torch.uint8), labels)
    return labels
