"""Videos that every browser plays: H.264 in mp4, with the pace and the sound of the video they were made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from utils.errors import UserError

FINE = 90000  # time stamps a second, at least
PLAYABLE = {
    "aac",
    "mp3",
    "mp3float",
    "opus",
    "flac",
    "ac3",
    "eac3",
    "alac",
}  # sound that mp4 carries as it is; the rest becomes AAC


class VideoWriter:
    """An H.264 video (yuv420p), complete at ``path`` only when closed without error.

    Use it as a context manager; ``write`` takes uint8 RGB [H, W, 3]. Odd sizes lose their last row or column.

    Args:
        fps: the pace of frames that are written without a time.
        sound: a file whose sound is taken along, if it has any, from ``sound_from`` seconds on.

    Raises:
        UserError: the file cannot be written.
    """

    def __init__(
        self, path: str | Path, fps: float | Fraction, *, sound: Path | None = None, sound_from: Fraction = Fraction(0)
    ):
        self.path = Path(path)
        self.fps = Fraction(fps).limit_denominator(1001)
        self._temporary = self.path.with_name(f".{os.getpid()}.{self.path.name}")
        self._container = self._stream = self._sound = self._waiting = None
        self._source, self._sound_from = sound, sound_from
        # A unit of time stamps that frames at this pace are whole multiples of
        self._unit = Fraction(1, self.fps.numerator * -(-FINE // self.fps.numerator))
        self._durations: dict[int, int] = {}  # in these units, by time stamp

    def __enter__(self) -> VideoWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "faststart"})
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror}") from error
        return self

    def write(self, frame: np.ndarray, time: Fraction | None = None, duration: Fraction | None = None) -> None:
        """The next frame; ``time`` in seconds from the first, and how long it is shown, None meaning 1/fps."""
        height, width = frame.shape[0] // 2 * 2, frame.shape[1] // 2 * 2
        if self._stream is None:
            self._start(width, height)
            self._count = 0
        time = self._count / self.fps if time is None else time
        self._count += 1
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
        picture.pts, picture.time_base = round(time / self._unit), self._unit
        self._durations[picture.pts] = max(1, round((duration or 1 / self.fps) / self._unit))
        self._mux(self._stream.encode(picture))
        if self._sound:
            self._sound.up_to(time)

    def _start(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=self.fps, options={"crf": "20"})
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = self._unit
        if self._source is not None:
            self._sound = _Sound.of(self._source, self._container, self._sound_from)

    def _mux(self, packets: list) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._end = max(getattr(self, "_end", 0), packet.pts + packet.duration)
            self._container.mux(packet)

    def __exit__(self, kind, error, trace) -> None:
        whole = kind is None and self._stream is not None
        try:
            if whole:
                self._mux(self._stream.encode())
                if self._sound:
                    self._sound.finish(self._end * self._unit)
        finally:
            if self._sound:
                self._sound.close()
            self._container.close()
            if whole:
                os.replace(self._temporary, self.path)
            else:
                self._temporary.unlink(missing_ok=True)


class _Sound:
    """The sound of a file, put into another beside its pictures; packets as they are, or as AAC."""

    def __init__(self, source, stream, container, start: Fraction):
        self._source, self._container, self._start = source, container, start
        self._copied = stream.codec_context.name in PLAYABLE
        if self._copied:
            self._stream = container.add_stream_from_template(stream)
            self._stream.codec_context.codec_tag = "\0\0\0\0"  # each container numbers codecs in its own way
        else:
            self._stream = container.add_stream("aac", rate=stream.rate or 48000)
        self._packets = self._read(stream)
        self._next = next(self._packets, None)

    @classmethod
    def of(cls, path: Path, container, start: Fraction) -> _Sound | None:
        """None if the file has no sound, or is no file."""
        if not path.is_file():
            return None
        source = av.open(str(path))
        if not source.streams.audio:
            source.close()
            return None
        return cls(source, source.streams.audio[0], container, start)

    def _read(self, stream) -> Iterator[tuple[Fraction, av.Packet]]:
        """Packets for the new file, with the time that each begins at there."""
        if self._start:
            self._source.seek(int(self._start * 1_000_000))
        # Time 0 is the first picture's, which need not be the first sound's
        video = self._source.streams.video[0]
        offset = self._start + (video.start_time or 0) * video.time_base
        parts = self._source.demux(stream) if self._copied else self._source.decode(stream)
        written = 0
        for part in parts:
            if part.pts is None or part.pts * part.time_base < offset:
                continue
            if self._copied:
                shift = round(offset / part.time_base)
                part.pts -= shift
                part.dts = part.pts if part.dts is None else part.dts - shift
                part.stream = self._stream
            else:
                # Counted in samples, none of them twice: time stamps that were rounded may overlap
                part.pts = max(written, round((part.pts * part.time_base - offset) * part.sample_rate))
                part.time_base = Fraction(1, part.sample_rate)
                written = part.pts + part.samples
            yield part.pts * part.time_base, part

    def up_to(self, time: Fraction) -> None:
        """Put in what begins before a time in seconds."""
        while self._next is not None and self._next[0] < time:
            self._container.mux(self._next[1] if self._copied else self._stream.encode(self._next[1]))
            self._next = next(self._packets, None)

    def finish(self, time: Fraction) -> None:
        self.up_to(time)
        if not self._copied:
            self._container.mux(self._stream.encode())

    def close(self) -> None:
        self._source.close()
