"""Your own videos in a folder: DIR/valid_demo/JPEGImages/<video>/ and DIR/valid_demo/Annotations/<video>/."""

from __future__ import annotations

from pathlib import Path

from datasets.annotated import AnnotatedVideo
from datasets.video import FrameFolder, list_images
from utils.errors import UserError
from utils.masks import HandMadeMasks


def read_demo_folder(root: str | Path) -> list[tuple[AnnotatedVideo, Path | None]]:
    """The videos of a folder in the DEMO layout.

    Returns:
        Each video, with valid_demo/Truth/<video>, true masks to score with, where there is such a folder.

    Raises:
        UserError: folders, frames or masks are missing.
    """
    demo = Path(root) / "valid_demo"
    folders = sorted(p for p in (demo / "JPEGImages").glob("*") if p.is_dir())
    if not folders:
        raise UserError(f"{demo / 'JPEGImages'}: no folders of frames in it; there must be one a video")
    return [_read(demo, folder) for folder in folders]


def _read(demo: Path, folder: Path) -> tuple[AnnotatedVideo, Path | None]:
    annotations, truth = demo / "Annotations" / folder.name, demo / "Truth" / folder.name
    masks = {file.stem: file for file in list_images(annotations)} if annotations.is_dir() else {}
    if not masks:
        raise UserError(f"{annotations}: no masks; put one there, named like its frame (00000.png)")
    video = AnnotatedVideo(folder.name, FrameFolder(folder), masks, read=HandMadeMasks().read)
    return video, truth if truth.is_dir() else None
