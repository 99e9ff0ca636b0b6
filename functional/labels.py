"""Label maps between the frame's resolution and the memory's."""

import torch
import torch.nn.functional as F

STRIDE = 4


def subsample(labels: torch.Tensor, step: int = STRIDE) -> torch.Tensor:
    """Every ``step``-th pixel of labels [..., H, W], from the first on."""
    return labels[..., ::step, ::step]


def paint(prediction: torch.Tensor, annotation: torch.Tensor) -> torch.Tensor:
    """Label map [H, W] of the prediction with the annotation over it.

    An object that the annotation shows is where it shows it, and nowhere else; the others stay.
    """
    corrected = torch.isin(prediction, annotation[annotation > 0].unique())
    return torch.where(annotation > 0, annotation, prediction.masked_fill(corrected, 0))


def uniform_neighbourhoods(
    labels: torch.Tensor, radius: int, skip_unlabelled: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the labels alone decide.

    Args:
        labels: int [M, H, W], -1 for none; outside the frame there is none.
        skip_unlabelled: whether positions without label do not count, instead of counting as another label.

    Returns:
        bool [H, W], whether all of the (2R+1)^2 positions around, in all M maps, carry one label, and
        that label, float [H, W].
    """
    flat = labels.float()
    high = flat.amax(0)[None, None]
    low = (flat.masked_fill(flat < 0, torch.inf) if skip_unlabelled else flat).amin(0)[None, None]
    outside = torch.inf if skip_unlabelled else -1
    high = F.pad(high, (radius,) * 4, value=-1)
    low = -F.pad(low, (radius,) * 4, value=outside)
    for kernel in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        high, low = F.max_pool2d(high, kernel, 1), F.max_pool2d(low, kernel, 1)
    high, low = high[0, 0], -low[0, 0]
    return (high == low) & (high >= 0), high


def upsample_argmax(scores: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The most probable label of every pixel; of equal ones the lowest.

    Bilinear, align_corners=False. A few labels at a time, so that 255 of them need no more memory than 8.

    Args:
        scores: [K, h, w] floating, 0 or more.
        size: (H, W) of the answer.

    Returns:
        uint8 [H, W], 0..K-1.
    """
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
