"""One person's work on one video, in a folder of its own: given masks, results, exports. What app.py shows."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from datasets.annotated import AnnotatedVideo
from datasets.video import Selection, VideoFile, open_frames, read_frame
from engine.directions import Labelled, label_frames
from engine.outputs import write_all
from models import MaskPropagator
from utils.checkpoint import replacing
from utils.errors import UserError
from utils.masks import read_mask, write_mask


class Session:
    """A video, the masks given for some of its frames, and the labels that follow from them.

    Args:
        video: a video file or a folder of frames.
        most_frames: longer videos are refused.
        root: where its folder is made; None is the system's place for temporary files.

    Raises:
        UserError: unreadable, or too long.
    """

    def __init__(self, video: str | Path, most_frames: int, root: str | Path | None = None):
        self.frames = open_frames(video)
        self.name = Path(video).stem
        self.length = self.frames.count() if isinstance(self.frames, VideoFile) else len(self.frames)
        if self.length > most_frames:
            raise UserError(f"the video has {self.length} frames; at most {most_frames} are taken here. Cut it first")
        self.folder = Path(tempfile.mkdtemp(prefix="mamp-session-", dir=root))
        self.confidence: dict[int, dict[int, float]] = {}

    def close(self) -> None:
        """Remove everything that was written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def frame(self, i: int) -> np.ndarray:
        """Frame i, uint8 RGB [H, W, 3]."""
        return read_frame(self.frames, i)

    def _mask(self, kind: str, i: int) -> Path:
        return self.folder / kind / f"{self.frames.name(i)}.png"

    @property
    def given(self) -> list[int]:
        """Numbers of the frames whose masks were given."""
        return [i for i in range(self.length) if self._mask("given", i).is_file()]

    def labels(self, i: int) -> np.ndarray | None:
        """What frame i is labelled with by now, uint8 [H, W]: as given, or as propagated, or None."""
        for kind in ("given", "masks"):
            if self._mask(kind, i).is_file():
                return read_mask(self._mask(kind, i))
        return None

    def give(self, i: int, labels: np.ndarray) -> None:
        """Take labels uint8 [H, W] as the truth of frame i; all 0 takes them back."""
        if labels.any():
            write_mask(self._mask("given", i), labels)
        else:
            self._mask("given", i).unlink(missing_ok=True)

    def propagate(self, propagator: MaskPropagator, start: int = 0) -> Iterator[Labelled]:
        """Label the frames from ``start`` on; each is saved before it is yielded.

        With ``start`` at a frame with a mask, what was found before it stays as it is. Closing the iterator
        stops; what is done by then is kept.

        Raises:
            UserError: no mask was given for a frame from ``start`` on.
        """
        masks = {self.frames.name(i): self._mask("given", i) for i in self.given if i >= start}
        if not masks:
            raise UserError("mark an object in a frame first, and keep it")
        video = AnnotatedVideo(self.name, Selection(self.frames, start), masks)
        with closing(label_frames(video, propagator, "both", confident=True)) as labelled:
            for item in labelled:
                item.number += start
                write_mask(self._mask("masks", item.number), item.labels)
                self.confidence[item.number] = item.confidence
                yield item

    def export(self) -> list[Path]:
        """Write masks.zip, overlay.mp4, objects.csv and coco.json of what is labelled by now; returns their paths.

        Raises:
            UserError: nothing is labelled yet.
        """
        done = [i for i in range(self.length) if self.labels(i) is not None]
        if not done:
            raise UserError("there is nothing to download yet: propagate first")
        video = AnnotatedVideo(self.name, self.frames, {})
        with write_all(video, self.folder, ["overlay", "csv", "coco"]) as write:
            for i, frame in enumerate(self.frames):
                labels = self.labels(i)
                if labels is None:
                    labels = np.zeros(frame.shape[:2], np.uint8)
                given = self._mask("given", i).is_file()
                write(Labelled(i, self.frames.name(i), frame, labels, self.confidence.get(i, {}), given))
        with (
            replacing(self.folder / "masks.zip") as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
        ):
            for i in done:
                kind = "given" if self._mask("given", i).is_file() else "masks"
                archive.write(self._mask(kind, i), f"{self.frames.name(i)}.png")
            archive.writestr("confidence.json", json.dumps(self.confidence))
        return [self.folder / name for name in ("masks.zip", "overlay.mp4", "objects.csv", "coco.json")]
