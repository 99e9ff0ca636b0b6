"""The validation set of YouTube-VOS, in the layout of the official download."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from datasets.annotated import AnnotatedVideo
from datasets.video import FrameFolder, list_images
from utils.errors import UserError


class YouTubeVOS:
    """The videos that valid/meta.json lists.

    Args:
        root: the folder that holds valid/meta.json, valid/JPEGImages and valid/Annotations.
        sequences: a subset of the videos; None means all.

    Raises:
        UserError: a file or folder is missing or unreadable, or a name is not listed.
    """

    def __init__(self, root: str | Path, sequences: Sequence[str] | None = None):
        self.root = Path(root) / "valid"
        meta = self.root / "meta.json"
        if not meta.is_file():
            raise UserError(f"{meta}: not there; --datapath takes the YouTube-VOS folder that holds valid/meta.json")
        try:
            self.meta = json.loads(meta.read_text())["videos"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{meta}: not YouTube-VOS's list of videos ({error!r})") from error
        unknown = [name for name in sequences or [] if name not in self.meta]
        if unknown:
            raise UserError(f"{meta} has no video {', '.join(unknown)}")
        self.names = list(sequences or sorted(self.meta))

    def videos(self) -> list[AnnotatedVideo]:
        """Each video with all its given masks and the frames to be written."""
        return [self._video(name) for name in self.names]

    def _video(self, name: str) -> AnnotatedVideo:
        frames = FrameFolder(self.root / "JPEGImages" / name)
        wanted = frozenset(f for thing in self.meta[name]["objects"].values() for f in thing["frames"])
        missing = sorted(name for name in wanted if frames.index(name) is None)
        if missing:
            raise UserError(f"{frames.path}: frame {missing[0]}.jpg, which meta.json lists, is not there")
        folder = self.root / "Annotations" / name
        masks = {file.stem: file for file in list_images(folder)} if folder.is_dir() else {}
        if not masks:
            raise UserError(f"{folder}: no masks for this video")
        return AnnotatedVideo(name, frames, masks, wanted)
