"""A video with the masks that are given: what every data set hands to the inference loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datasets.video import Frames
from utils.errors import UserError
from utils.masks import read_mask


@dataclass
class AnnotatedVideo:
    """Frames, and the labels of some of them. A UserError if a mask has no frame.

    Attributes:
        name: the name of its folder of masks.
        frames: any source of :mod:`datasets.video`.
        masks: mask file by the name of its frame.
        wanted: names of the frames whose masks are to be written; None means all.
        read: reads a mask file, given the (H, W) it should have: object numbers uint8 [H, W].
    """

    name: str
    frames: Frames
    masks: Mapping[str, Path]
    wanted: frozenset[str] | None = None
    read: Callable[[Path, tuple[int, int]], np.ndarray] = read_mask

    def __post_init__(self):
        for name, file in sorted(self.masks.items()):
            i = self.frames.index(name)
            if i is None or (len(self.frames) and i >= len(self.frames)):
                raise UserError(f"{file}: a mask without its frame: there is no {name} in {self.frames.path}")

    def labels(self, frame_name: str, shape: tuple[int, int]) -> np.ndarray | None:
        """The labels uint8 [H, W] given for a frame, if any.

        Raises:
            UserError: unreadable, not of this (H, W), or the only mask of the video and empty.
        """
        file = self.masks.get(frame_name)
        if file is None:
            return None
        labels = self.read(file, shape)
        if len(self.masks) == 1 and not labels.any():
            raise UserError(f"{file}: the mask is empty: mark at least one object in it (pixel values 1 to 255)")
        return labels


def one_object(mask: np.ndarray) -> np.ndarray:
    """All that is not 0 is object 1, as in DAVIS-2016."""
    return (mask > 0).astype(np.uint8)


def without_void(mask: np.ndarray) -> np.ndarray:
    """Object numbers as they are; 255 is the one object of a 0/255 mask, and void (0) beside other numbers."""
    if not (mask == 255).any():
        return mask
    return one_object(mask) if set(np.unique(mask)) <= {0, 255} else np.where(mask == 255, 0, mask)
