"""Which earlier frames a query is matched with, and where what is known of them is kept.

A rule is a class with two members: ``lookback``, how far back it may look for frames that are not kept
for good, and ``reads(t, annotated)``, the frames that query t reads. A new rule is one such class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from utils.errors import UserError

RECENT = (1, 3, 5)  # recent frames are read at stride 2


class MemoryRule(Protocol):
    """What :class:`MemoryBank` asks of a rule."""

    lookback: int

    def reads(self, t: int, annotated: list[int]) -> list[int]:
        """The frames < t that query t reads, ascending; ``annotated`` are the given ones < t."""


class DavisMemory:
    """The paper's memory for DAVIS (Section 3.2): the first frames and some recent ones.

    Args:
        length: 5: {0, 5} and {t-1, t-3, t-5}; 4: {0} and {t-1, t-3, t-5}; 2: {0, t-2}; 1: {t-1}; 0: {0}.

    Frames annotated later than frame 0, which DAVIS does not have, are read too, the latest
    :data:`MOST_ANNOTATED` of them; predictions from before the latest are not: it may have corrected them.
    """

    MOST_ANNOTATED = 3

    def __init__(self, length: int = 5):
        if length not in (0, 1, 2, 4, 5):
            raise UserError(f"--memory_length {length}: for DAVIS it is 5, 4, 2, 1 or 0")
        self.length = length
        self.lookback = max(RECENT)

    def reads(self, t: int, annotated: list[int]) -> list[int]:
        given = [f for f in annotated if f > 0][-self.MOST_ANNOTATED :]
        corrected = max(annotated, default=0)
        recent = {t - gap for gap in RECENT if t - gap >= max(1, corrected)}
        chosen = {
            0: {0},
            1: {t - 1},
            2: {0, max(0, t - 2)},
            4: {0} | recent,
            5: {0} | recent | ({5} if t > 5 >= corrected else set()),
        }[self.length]
        return sorted(chosen.union(given))


class YouTubeVOSMemory:
    """The paper's memory for YouTube-VOS (Section 4.1): every annotated frame, then recent ones up to ``length``."""

    def __init__(self, length: int = 4):
        if length < 1:
            raise UserError(f"--memory_length {length}: for YouTube-VOS it is 1 or more")
        self.length = length
        self.lookback = 2 * length - 1

    def reads(self, t: int, annotated: list[int]) -> list[int]:
        chosen = set(annotated)
        for recent in range(t - 1, 0, -2):
            if len(chosen) >= self.length:
                break
            chosen.add(recent)
        return sorted(chosen)


@dataclass
class Remembered:
    """One frame in memory.

    Attributes:
        features: [C, h, w] at stride 4.
        labels: int16 [f*h, f*w], indices of labels, f x f of them a position.
        frame: uint8 RGB [H, W, 3] at the size that is worked with, for the optical flow.
        colours: float32 [3, f*h, f*w], of each label, or None where they do not count.
    """

    features: torch.Tensor
    labels: torch.Tensor
    frame: np.ndarray
    colours: torch.Tensor | None = None


class MemoryBank:
    """Frames by their number, as long as any later frame can read them.

    With either rule and a fixed number of annotated frames its size does not depend on the video's length.
    """

    def __init__(self, rule: MemoryRule):
        self.rule = rule
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.frames: dict[int, Remembered] = {}
        self.annotated: list[int] = []

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, t: int) -> dict[int, Remembered]:
        """What query t reads, by frame number."""
        return {f: self.frames[f] for f in self.rule.reads(t, self.annotated)}

    def add(self, t: int, remembered: Remembered, annotated: bool) -> None:
        """Remember frame t, and forget what no frame after it can read."""
        self.frames[t] = remembered
        if annotated:
            self.annotated.append(t)
        later = range(t + 1, t + 2 + self.rule.lookback)
        needed = {f for query in later for f in self.rule.reads(query, self.annotated)}
        self.frames = {f: kept for f, kept in self.frames.items() if f in needed}
