"""Labelling a video in time's direction, against it, and between two given masks from both sides."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from datasets.annotated import AnnotatedVideo
from models import MaskPropagator
from utils.background import ahead, with_next
from utils.errors import UserError

log = logging.getLogger(__name__)

DIRECTIONS = ("forward", "backward", "both")
CHUNK = 16  # frames held at once while a video is read from its end


@dataclass
class Labelled:
    """A frame with its answer.

    Attributes:
        number: of the frame, counted from 0; name: what it is called.
        frame: uint8 RGB [H, W, 3]; labels: uint8 [H, W].
        confidence: 0..1 by object, see :meth:`models.propagator.MaskPropagator.confidence`; empty if not asked for.
        given: whether a mask was given for this frame.
    """

    number: int
    name: str
    frame: np.ndarray
    labels: np.ndarray
    confidence: dict[int, float]
    given: bool = False


def label_frames(
    video: AnnotatedVideo,
    propagator: MaskPropagator,
    direction: str = "forward",
    *,
    confident: bool = False,
    quiet: bool = True,
) -> Iterator[Labelled]:
    """Label every frame of a video, in the order of time.

    Args:
        video: with one mask or more.
        propagator: is reset first.
        direction: "forward": each frame follows from the masks before it; "backward": from the next mask
            after it; "both": frames before the first mask backward, after the last forward, and in between
            both ways, of which at each pixel the surer one counts, the more the nearer its mask is.
        confident: compute the confidence of every frame.
        quiet: no progress bar for the passes that run backward.

    Raises:
        UserError: frames of different sizes, unreadable input, or "backward" from a camera.
    """
    marks = sorted(video.frames.index(name) for name in video.masks)
    propagator.reset()
    frames = ahead(video.frames)
    shape, back = None, None
    with closing(frames), tempfile.TemporaryDirectory(prefix="mamp-") as spool:
        for i, (frame, upcoming) in enumerate(with_next(frames)):
            name = video.frames.name(i)
            shape = shape or frame.shape
            if frame.shape != shape:
                raise UserError(
                    f"{video.frames.path}: frame {name} is {frame.shape[1]}x{frame.shape[0]}, "
                    f"those before it are {shape[1]}x{shape[0]}"
                )
            given = video.labels(name, frame.shape[:2])
            end = next((mark for mark in marks if mark > i), None)
            if direction != "forward" and end is not None and (i == 0 or i in marks):
                first = i + 1 if i in marks else i
                back = _BackwardPass(video, propagator.another(), first, end, Path(spool), confident, quiet)
            if direction == "backward" and given is None:
                labels, confidence = np.zeros(shape[:2], np.uint8), {}
            else:
                labels = propagator.step(frame, given, upcoming if direction != "backward" else None)
                confidence = propagator.confidence() if confident else {}
            if back is not None and i in back and given is None:
                mine = propagator.certainty() if direction == "both" else None
                labels, confidence = back.fuse(i, labels, confidence, mine)
            yield Labelled(i, name, frame, labels, confidence, given is not None)
    unused = [mark for mark in marks if shape is None or mark > i]
    if unused:
        name = video.frames.name(unused[0])
        raise UserError(f"{video.masks[name]}: a mask without its frame: {video.frames.path} ends at frame {i}")


class _BackwardPass:
    """What a mask says about the frames before it, back to ``start``, kept in files until its turn comes."""

    def __init__(self, video: AnnotatedVideo, propagator: MaskPropagator, start: int, end: int, spool: Path,
                 confident: bool, quiet: bool):  # fmt: skip
        if not hasattr(video.frames, "section"):
            raise UserError(f"{video.frames.path}: a camera cannot be labelled backward; use --direction forward")
        self.start, self.end, self.spool = start, end, spool
        self._confidence: dict[int, dict[int, float]] = {}
        bar = tqdm(total=end - start, desc=f"{video.name}, back from {end}", unit="frame", leave=False, disable=quiet)
        with bar:
            for i, frame in self._reversed(video):
                given = video.labels(video.frames.name(i), frame.shape[:2]) if i == end else None
                labels = propagator.step(frame, given)
                if i < end:
                    self._keep(i, labels, propagator, confident)
                bar.update()

    def __contains__(self, i: int) -> bool:
        return i in self._confidence

    def _reversed(self, video: AnnotatedVideo) -> Iterator[tuple[int, np.ndarray]]:
        for stop in range(self.end + 1, self.start, -CHUNK):
            first = max(self.start, stop - CHUNK)
            frames = list(video.frames.section(first, stop))
            yield from zip(range(stop - 1, first - 1, -1), reversed(frames), strict=False)

    def _keep(self, i: int, labels: np.ndarray, propagator: MaskPropagator, confident: bool) -> None:
        cv2.imwrite(str(self.spool / f"{i}-labels.png"), labels)
        cv2.imwrite(str(self.spool / f"{i}-share.png"), np.uint8(255 * propagator.certainty()))
        self._confidence[i] = propagator.confidence() if confident else {}

    def fuse(
        self, i: int, labels: np.ndarray, confidence: dict[int, float], certainty: np.ndarray | None
    ) -> tuple[np.ndarray, dict[int, float]]:
        """Labels and confidence of frame i from both sides; ``certainty`` is the forward side's, if it has any."""
        paths = [self.spool / f"{i}-labels.png", self.spool / f"{i}-share.png"]
        other, share = (cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in paths)
        for path in paths:
            path.unlink()
        other_confidence = self._confidence.pop(i)
        if certainty is None:
            return other, other_confidence
        near = (self.end - i) / (self.end - self.start + 1)  # to the mask that the forward side started from
        size = labels.shape[::-1]
        ours = cv2.resize(certainty * near, size, interpolation=cv2.INTER_LINEAR)
        theirs = cv2.resize(np.float32(share / 255 * (1 - near)), size, interpolation=cv2.INTER_LINEAR)
        objects = confidence.keys() | other_confidence
        surer = {k: max(confidence.get(k, 0.0), other_confidence.get(k, 0.0)) for k in objects}
        return np.where(ours >= theirs, labels, other), surer
