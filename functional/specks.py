"""Votes that a patch far from an object gets because it happens to look like it."""

from collections.abc import Container

import cv2
import numpy as np
import torch

REACH = 1 / 30  # of the frame's shorter side
SLIP = 1 / 200  # of an object's area: less is a slip of whoever painted it


def without_specks(shares: torch.Tensor, smallest: float, scattered: Container[int] = ()) -> torch.Tensor:
    """Take the votes of an object away where they win in a small piece far from the rest of it.

    Pieces that less than twice :data:`REACH` parts count as one, so that thin parts, which the votes leave in pieces,
    stay.

    Args:
        shares: float [K, h, w], each label's votes; 0 is the background.
        smallest: pieces stay that have at least this share of the area of the object's largest piece.
        scattered: labels that keep their specks.

    Returns:
        [K, h, w]; where votes were taken, the others share what there is, and what had no others is background.
    """
    winner = shares.max(0).indices.to(torch.uint8).cpu().numpy()  # argmax is twenty times as slow on a CPU
    specks = {
        label: _specks(winner == label, smallest) for label in np.unique(winner) if label and label not in scattered
    }
    specks = {label: where for label, where in specks.items() if where.any()}
    if not specks:
        return shares
    shares = shares.clone()
    for label, where in specks.items():
        shares[label, torch.from_numpy(where).to(shares.device)] = 0
    total = shares.sum(0)
    shares[0].masked_fill_(total == 0, 1)
    return shares / total.masked_fill(total == 0, 1)


def scattered_labels(labels: torch.Tensor, smallest: float) -> set[int]:
    """Of given labels, int [h, w], those that were given with specks, which therefore are no mistake."""
    held = labels.cpu().numpy()
    masks = {int(label): held == label for label in np.unique(held[held > 0])}
    return {label for label, mask in masks.items() if _specks(mask, smallest).sum() > SLIP * mask.sum()}


def _specks(mask: np.ndarray, smallest: float) -> np.ndarray:
    """bool [h, w], the pieces of a bool mask [h, w] that are small and far from others."""
    reach = round(REACH * min(mask.shape))
    specks = np.zeros_like(mask)
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    part = mask[y : y + height, x : x + width]
    near = cv2.dilate(part.view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    pieces, which = cv2.connectedComponents(near)
    area = np.bincount(which[part], minlength=pieces)
    specks[y : y + height, x : x + width] = part & (area < smallest * area.max())[which]
    return specks
