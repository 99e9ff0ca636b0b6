"""Video files and folders of frames: one way to read both, and a writer that browsers can play."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from utils.errors import UserError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".ogv", ".gif"}


def read_image(path: str | Path) -> np.ndarray:
    """uint8 RGB [H, W, 3].

    Raises:
        UserError: the file is missing, no image, or cut short.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    # A JPEG that lost its end still decodes, to grey: ask for its end marker (trailing zeros are common)
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]:
        raise UserError(f"{path}: truncated JPEG; copy or extract this frame again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise UserError(f"{path}: not a readable image (JPEG, PNG, BMP or WebP)")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def list_images(folder: str | Path) -> list[Path]:
    """The images in a folder, by name."""
    return sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)


class FrameFolder:
    """A folder of frames, in the order of their names. Iterating reads them, uint8 RGB [H, W, 3].

    Raises:
        UserError: no such folder, or no image in it.
    """

    fps = Fraction(24)

    def __init__(self, folder: str | Path):
        self.path = Path(folder)
        if not self.path.is_dir():
            raise UserError(f"{folder}: no such folder of frames")
        self.files = list_images(folder)
        if not self.files:
            raise UserError(f"{folder}: no frames (.jpg or .png) in this folder")
        self.names = [file.stem for file in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(read_image, self.files)


class VideoFile:
    """A video file. Iterating decodes it, uint8 RGB [H, W, 3] as it is to be shown (rotation applied).

    Attributes:
        fps: average frames per second.

    ``len()`` is what the container says and may be a little off; 0 if it says nothing.

    Raises:
        UserError: no such file, or no video stream in it; while iterating: not one frame decodes.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._open() as container:
            stream = container.streams.video[0]
            self.fps = stream.average_rate or stream.guessed_rate or Fraction(25)
            seconds = float(stream.duration * stream.time_base) if stream.duration else 0
            self._length = stream.frames or round(seconds * float(self.fps))

    def _open(self):
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such video file")
        try:
            container = av.open(str(self.path))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{self.path}: not a video that can be decoded ({error.strerror})") from error
        if not container.streams.video:
            container.close()
            raise UserError(f"{self.path}: there is no video in this file")
        return container

    @property
    def names(self) -> Iterator[str]:
        """00000, 00001, ...: what the masks of the frames are called."""
        return (f"{i:05d}" for i in itertools.count())

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        with self._open() as container:
            container.streams.video[0].thread_type = "AUTO"
            try:
                for frame in container.decode(video=0):
                    image = frame.to_ndarray(format="rgb24")
                    count += 1
                    yield np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))
            except av.error.FFmpegError as error:
                if not count:
                    raise UserError(f"{self.path}: not one frame decodes ({error.strerror})") from error
        if not count:
            raise UserError(f"{self.path}: not one frame decodes")


def open_frames(path: str | Path) -> FrameFolder | VideoFile:
    """Frames of a folder or of a video file: iterable, with ``len``, ``names`` and ``fps``.

    Raises:
        UserError: it is neither.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such video file or folder of frames")
    return FrameFolder(path) if path.is_dir() else VideoFile(path)


class VideoWriter:
    """An H.264 video (yuv420p, so every browser plays it), complete at ``path`` only when closed without error.

    Use it as a context manager; ``write`` takes uint8 RGB [H, W, 3]. Odd sizes lose their last row or column.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(self, path: str | Path, fps: float | Fraction):
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(1001)
        self._temporary = self.path.with_name(f".{os.getpid()}.{self.path.name}")
        self._container = self._stream = None

    def __enter__(self) -> VideoWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "faststart"})
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        return self

    def write(self, frame: np.ndarray) -> None:
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self.fps, options={"crf": "20"})
            self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def __exit__(self, kind, error, trace) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()
            if kind is None and self._stream is not None:
                os.replace(self._temporary, self.path)
            else:
                self._temporary.unlink(missing_ok=True)
