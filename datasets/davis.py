"""DAVIS-2016 and DAVIS-2017 at 480p, in the layout of the official download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.annotated import AnnotatedVideo, one_object, without_void
from datasets.video import FrameFolder, list_images
from utils.errors import UserError
from utils.masks import read_mask


class Davis:
    """The sequences of one split.

    Args:
        root: the folder that holds JPEGImages/480p, Annotations/480p and ImageSets/<year>/<split>.txt.
        year: 2016 (everything annotated is one object) or 2017.
        split: "val", "train", ...
        sequences: a subset of the split's names; None means all.

    Raises:
        UserError: a folder or list is missing, or a name is not in the list.
    """

    def __init__(self, root: str | Path, year: int = 2017, split: str = "val", sequences: Sequence[str] | None = None):
        self.root, self.year, self.split = Path(root), year, split
        if not self.root.is_dir():
            raise UserError(f"{root}: no such folder; --datapath takes the folder DAVIS that holds JPEGImages/480p")
        listed = self.root / "ImageSets" / str(year) / f"{split}.txt"
        if not listed.is_file():
            there = ", ".join(sorted(str(p.relative_to(self.root)) for p in self.root.glob("ImageSets/*/*.txt")))
            raise UserError(f"{listed}: no such list of sequences; this folder has {there or 'none at all'}")
        self.names = listed.read_text().split()
        if sequences:
            unknown = [name for name in sequences if name not in self.names]
            if unknown:
                raise UserError(f"{listed} has no sequence {', '.join(unknown)}; it has {', '.join(self.names)}")
            self.names = list(sequences)
        self.convert = one_object if year == 2016 else without_void

    def videos(self) -> list[AnnotatedVideo]:
        """Each sequence with the mask of its first frame."""
        return [self._video(name) for name in self.names]

    def _video(self, name: str) -> AnnotatedVideo:
        frames = FrameFolder(self.root / "JPEGImages" / "480p" / name)
        mask = self._annotations(name) / f"{frames.name(0)}.png"
        return AnnotatedVideo(name, frames, {frames.name(0): mask}, read=self.read)

    def read(self, file: Path, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Object numbers uint8 [H, W] of an annotation file."""
        return self.convert(read_mask(file, shape))

    def _annotations(self, name: str) -> Path:
        folder = self.root / "Annotations" / "480p" / name
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of masks")
        return folder

    def scored_frames(self, name: str) -> list[Path]:
        """The annotation files that count: all but the first and the last.

        Raises:
            UserError: the sequence has fewer than three, as in the test sets, whose truth is not public.
        """
        files = list_images(self._annotations(name))
        if len(files) < 3:
            raise UserError(f"{self._annotations(name)}: {len(files)} masks; scoring needs the truth of all frames")
        return files[1:-1]

    def objects(self, name: str) -> int:
        """How many objects the first annotation has."""
        return int(self.read(list_images(self._annotations(name))[0]).max())

    def truth(self, file: Path) -> tuple[np.ndarray, np.ndarray]:
        """Of an annotation file: labels uint8 [H, W], and void bool [H, W], which counts nowhere."""
        mask = read_mask(file)
        labels = self.convert(mask)
        return labels, (mask > 0) & (labels == 0)
