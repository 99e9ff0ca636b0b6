"""Video files, folders of frames and cameras: one way to read them all.

Every source has ``path``, ``fps``, ``len()`` (0 if unknown), iteration over frames uint8 RGB [H, W, 3], and

    name(i)              what frame i is called, and its mask
    index(name)          the number of a frame by its name, None if there is none
    time(i)              when it is shown, in seconds (a Fraction) after the first
    section(start, stop) iterates over some frames only; cameras cannot
"""

from __future__ import annotations

import functools
import itertools
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av
import cv2
import numpy as np

from utils.errors import UserError

log = logging.getLogger(__name__)

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


class Frames(Protocol):
    """What every source of frames offers; see the top of this file."""

    path: Path
    fps: Fraction

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[np.ndarray]: ...
    def name(self, i: int) -> str: ...
    def index(self, name: str) -> int | None: ...
    def time(self, i: int) -> Fraction: ...


def read_frame(frames: Frames, i: int) -> np.ndarray:
    """Frame i, uint8 RGB [H, W, 3]; of a camera, the first that it gave.

    Raises:
        UserError: there is no such frame.
    """
    if isinstance(frames, Selection) and not hasattr(frames.source, "section"):
        frames = frames.source
    image = frames.first if isinstance(frames, Camera) else next(iter(frames.section(i, i + 1)), None)
    if image is None:
        raise UserError(f"{frames.path}: there is no frame {i}")
    return image


class FrameFolder:
    """A folder of frames, in the order of their names.

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
        self._index = {file.stem: i for i, file in enumerate(self.files)}

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.section(0, len(self))

    def name(self, i: int) -> str:
        return self.files[i].stem

    def index(self, name: str) -> int | None:
        return self._index.get(name)

    def time(self, i: int) -> Fraction:
        return i / self.fps

    def section(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return map(read_image, self.files[start:stop])


class _Numbered:
    """What a source without names calls its frames: 00000, 00001, ..."""

    def name(self, i: int) -> str:
        return f"{i:05d}"

    def index(self, name: str) -> int | None:
        return int(name) if name.isdecimal() else None


class VideoFile(_Numbered):
    """A video file. Iterating decodes it as it is to be shown: rotated, in 8 bits of RGB.

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

    def __len__(self) -> int:
        return self._length

    def count(self) -> int:
        """How many frames there are by their time stamps, without decoding; ``len()`` if there are none."""
        return len(self._stamps[0]) or len(self)

    def __iter__(self) -> Iterator[np.ndarray]:
        count = 0
        with self._open() as container:
            try:
                for _, image in self._decode(container):
                    count += 1
                    yield image
            except av.error.FFmpegError as error:
                if not count:
                    raise UserError(f"{self.path}: not one frame decodes ({error.strerror})") from error
                log.warning("%s: cannot be decoded beyond frame %d (%s)", self.path, count - 1, error.strerror)
        if not count:
            raise UserError(f"{self.path}: not one frame decodes")

    def _decode(self, container) -> Iterator[tuple[int | None, np.ndarray]]:
        """Presentation time stamps, in units of the stream, and pictures, from where the container stands."""
        container.streams.video[0].thread_type = "AUTO"
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            yield frame.pts, np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90)))

    @functools.cached_property
    def _stamps(self) -> tuple[list[int], Fraction]:
        """Time stamps of all frames, in the order of showing, and their unit in seconds; nothing is decoded."""
        with self._open() as container:
            stream = container.streams.video[0]
            packets = container.demux(stream)
            stamps = sorted(p.pts for p in packets if p.size and p.pts is not None and not p.is_discard)
            return stamps, stream.time_base

    def time(self, i: int) -> Fraction:
        stamps, unit = self._stamps
        if i < len(stamps):
            return (stamps[i] - stamps[0]) * unit
        # Beyond the last, or the file has no time stamps
        known = max(0, len(stamps) - 1)
        return (self.time(known) if stamps else 0) + (i - known) / self.fps

    def section(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Frames start..stop-1; jumps to the key frame before where the file allows it."""
        stamps, _ = self._stamps
        if start == 0 or len(stamps) <= start:
            yield from itertools.islice(self, start, stop)
            return
        with self._open() as container:
            container.seek(stamps[start], stream=container.streams.video[0])
            decoded = self._decode(container)
            first = next(decoded, (None, None))
            if first[0] is None or first[0] > stamps[start]:  # the jump went too far, or there are no time stamps
                yield from itertools.islice(self, start, stop)
                return
            wanted = (image for stamp, image in itertools.chain([first], decoded) if stamp >= stamps[start])
            yield from itertools.islice(wanted, stop - start)


class Camera(_Numbered):
    """A camera by its number, as OpenCV counts them. It has no end, and cannot go back.

    Raises:
        UserError: there is no such camera, or another program has it.
    """

    def __init__(self, number: int):
        self.path = Path(f"camera-{number}")
        self._capture = cv2.VideoCapture(number)
        if not self._capture.isOpened():
            raise UserError(f"--video {number}: no camera of this number, or another program uses it")
        self.fps = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        there, frame = self._capture.read()
        if not there:
            raise UserError(f"--video {number}: the camera gives no pictures")
        self.first = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            yield self.first
            while True:
                there, frame = self._capture.read()
                if not there:
                    return
                yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()

    def time(self, i: int) -> Fraction:
        return i / self.fps


class Selection:
    """Frames start, start + every, ... of a source, before ``stop``; they keep their names and times.

    Args:
        source: any of the above. start: counted from 0. stop: the first that is left out; None: none is.
        every: 1 takes every frame, 2 every second.

    Raises:
        UserError: nothing would be left, or a camera is asked to start later.
    """

    def __init__(self, source: Frames, start: int = 0, stop: int | None = None, every: int = 1):
        if start < 0 or every < 1 or (stop is not None and stop <= start):
            raise UserError(f"--start {start} --end {stop} --every {every}: there is no frame in this range")
        if start and not hasattr(source, "section"):
            raise UserError("--start: a camera starts with what it sees")
        if len(source) and start >= len(source):
            raise UserError(f"--start {start}: {source.path} has only {len(source)} frames")
        self.source, self.start, self.every = source, start, every
        self.stop = stop
        self.path, self.fps = source.path, source.fps / every

    def __len__(self) -> int:
        if not len(self.source) and self.stop is None:
            return 0
        stop = min(self.stop or len(self.source), len(self.source) or self.stop)
        return -(-(stop - self.start) // self.every)

    def __iter__(self) -> Iterator[np.ndarray]:
        if not self.start:
            return itertools.islice(self.source, 0, self.stop, self.every)
        stop = self.stop if self.stop is not None else 1 << 40
        return itertools.islice(self.source.section(self.start, stop), 0, None, self.every)

    def name(self, i: int) -> str:
        return self.source.name(self.start + i * self.every)

    def index(self, name: str) -> int | None:
        there = self.source.index(name)
        if there is None or there < self.start or (self.stop is not None and there >= self.stop):
            return None
        return None if (there - self.start) % self.every else (there - self.start) // self.every

    def time(self, i: int) -> Fraction:
        return self.source.time(self.start + i * self.every) - self.source.time(self.start)

    def section(self, start: int, stop: int) -> Iterator[np.ndarray]:
        first, last = self.start + start * self.every, self.start + (stop - 1) * self.every
        return itertools.islice(self.source.section(first, last + 1), 0, None, self.every)


def open_frames(path: str | Path) -> Frames:
    """The frames of a folder, of a video file, or of a camera ("0", "1", ...).

    Raises:
        UserError: it is none of these.
    """
    path = Path(path)
    if not path.exists():
        if str(path).isdecimal():
            return Camera(int(str(path)))
        raise UserError(f"{path}: no such video file or folder of frames")
    return FrameFolder(path) if path.is_dir() else VideoFile(path)
