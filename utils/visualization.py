"""Pictures for people: masks over frames, and what training sees."""

import cv2
import numpy as np

from utils.masks import PALETTE

COLOURS = np.uint8(255 * np.sqrt(PALETTE / 255))
"""uint8 [256, 3]: the palette, brighter, for pictures and screens."""


def overlay(frame: np.ndarray, labels: np.ndarray, opacity: float = 0.5, numbers: bool = False) -> np.ndarray:
    """The frame with each object tinted in its colour and outlined.

    Args:
        frame: uint8 RGB [H, W, 3]; labels: uint8 [H, W], 0 is background.
        opacity: of the tint, 0..1. numbers: write each object's number on it.

    Returns:
        uint8 RGB [H, W, 3].
    """
    colours = COLOURS[labels]
    blended = cv2.addWeighted(frame, 1 - opacity, colours, opacity, 0)
    out = np.where(labels[..., None] > 0, blended, frame)
    changes = cv2.morphologyEx(labels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    outline = changes & (labels > 0)
    out[outline] = np.minimum(255, colours[outline].astype(np.int16) + 96).astype(np.uint8)
    for label in np.unique(labels[labels > 0]) if numbers else ():
        _write_number(out, labels == label, label)
    return out


def _write_number(picture: np.ndarray, mask: np.ndarray, number: int) -> None:
    """Write a number, white on black, where the object is widest; in place."""
    inside = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(inside.argmax(), inside.shape)
    scale = max(0.4, min(mask.shape) / 800)
    (width, height), _ = cv2.getTextSize(str(number), cv2.FONT_HERSHEY_SIMPLEX, scale, 2)
    at = (int(x - width / 2), int(y + height / 2))
    for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
        cv2.putText(picture, str(number), at, cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness, cv2.LINE_AA)


class ContactSheet:
    """Evenly spread pictures of a video of any length, small, in two rows.

    Args:
        pictures: how many the sheet shows; an even number. width: of each, in pixels.
    """

    def __init__(self, pictures: int = 6, width: int = 320):
        self.pictures, self.width = pictures, width
        self._kept: list[np.ndarray] = []
        self._count, self._step = 0, 1

    def add(self, frame: np.ndarray) -> None:
        """The next frame, uint8 RGB [H, W, 3]; at most four times as many as shown are kept."""
        if self._count % self._step == 0:
            height = max(1, round(frame.shape[0] * self.width / frame.shape[1]))
            self._kept.append(cv2.resize(frame, (self.width, height), interpolation=cv2.INTER_AREA))
        self._count += 1
        if len(self._kept) > 4 * self.pictures:
            self._kept, self._step = self._kept[::2], 2 * self._step

    def draw(self) -> np.ndarray:
        """uint8 RGB [2 h, pictures / 2 * width, 3]; the first and the last kept frame are always on it."""
        chosen = np.linspace(0, len(self._kept) - 1, self.pictures).round().astype(int)
        half = self.pictures // 2
        rows = [np.hstack([self._kept[i] for i in part]) for part in (chosen[:half], chosen[half:])]
        return np.vstack(rows)


def lab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """Inverse of :func:`datasets.transforms.to_lab`: float [3, H, W] -> uint8 RGB [H, W, 3]."""
    channels = lab.transpose(1, 2, 0) * np.float32([50, 127, 127]) + np.float32([50, 0, 0])
    rgb = cv2.cvtColor(np.ascontiguousarray(channels, np.float32), cv2.COLOR_LAB2RGB)
    return (rgb.clip(0, 1) * 255).round().astype(np.uint8)
