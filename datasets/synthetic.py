"""A video that the project makes itself, with exact masks: photo cut-outs before a photo, under a moving camera.

The photographs come with scikit-image, so nothing is downloaded and nothing is stored here. Three objects with
soft, changing outlines move, turn, grow and pass in front of each other; the camera pans and zooms.

    python -m datasets.synthetic DIR      writes DIR/valid_demo/{JPEGImages,Annotations,Truth}/synthetic
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from utils.checkpoint import replacing
from utils.masks import write_mask


@dataclass(frozen=True)
class CutOut:
    """A blob cut out of a photo.

    Attributes:
        photo: uint8 RGB [h, w, 3]; centre: (x, y) in it of the blob's middle.
        radius: of the blob in the frame, in pixels at 854x480.
        start, end: (x, y) of its middle in the frame, as fractions of width and height.
        turn: radians over the whole video; grow: final over initial size.
        outline: (amplitude, phase, speed) of the waves 2, 3, 4 that deform its outline.
    """

    photo: np.ndarray
    centre: tuple[float, float]
    radius: float
    start: tuple[float, float]
    end: tuple[float, float]
    turn: float
    grow: float
    outline: tuple[tuple[float, float, float], ...]

    def draw(self, frame: np.ndarray, labels: np.ndarray, number: int, time: float) -> None:
        """Draw over ``frame`` and write ``number`` into ``labels``, in place; ``time`` is 0..1."""
        height, width = labels.shape
        eased = time * time * (3 - 2 * time)
        x0 = (self.start[0] + (self.end[0] - self.start[0]) * eased) * width
        y0 = (self.start[1] + (self.end[1] - self.start[1]) * eased + 0.04 * np.sin(9 * time)) * height
        size = self.radius * height / 480 * self.grow**time
        angle = self.turn * time
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        dx, dy = x - x0, y - y0
        u = (np.cos(angle) * dx + np.sin(angle) * dy) / size
        v = (-np.sin(angle) * dx + np.cos(angle) * dy) / size
        theta, distance = np.arctan2(v, u), np.hypot(u, v)
        edge = np.ones_like(u)
        for wave, (amplitude, phase, speed) in enumerate(self.outline, start=2):
            edge += amplitude * np.cos(wave * theta + phase + speed * time)
        inside = (edge - distance) * size  # about the distance to the outline in pixels
        reach = 0.45 * min(self.photo.shape[:2]) / 1.4
        columns = (u * reach + self.centre[0]).astype(np.float32)
        rows = (v * reach + self.centre[1]).astype(np.float32)
        texture = cv2.remap(self.photo, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        alpha = np.clip(inside + 0.5, 0, 1)[..., None]
        frame[:] = (alpha * texture + (1 - alpha) * frame + 0.5).astype(np.uint8)
        labels[inside > 0] = number


class SyntheticVideo:
    """Iterable of uint8 RGB [H, W, 3]; :meth:`render` gives a frame with its exact labels.

    Args:
        length: frames; width, height: of a frame in pixels.
    """

    fps = Fraction(24)
    objects = 3

    def __init__(self, length: int = 60, width: int = 854, height: int = 480):
        from skimage import data  # slow to import, and only needed here

        self.length, self.width, self.height = length, width, height
        self._background = data.stereo_motorcycle()[0]
        self._cut_outs = [
            CutOut(
                data.chelsea(),
                (230, 130),
                88,
                (0.22, 0.55),
                (0.66, 0.42),
                0.7,
                1.15,
                ((0.10, 0.0, 3.0), (0.05, 1.0, -4.0), (0.03, 0.5, 5.0)),
            ),
            CutOut(
                data.astronaut(),
                (225, 130),
                76,
                (0.80, 0.35),
                (0.34, 0.60),
                -0.9,
                0.9,
                ((0.08, 2.0, -3.0), (0.06, 0.0, 4.0), (0.04, 1.5, -3.0)),
            ),
            CutOut(
                data.coffee(),
                (290, 180),
                52,
                (0.50, 0.82),
                (0.62, 0.16),
                2.2,
                1.2,
                ((0.12, 1.0, 4.0), (0.04, 2.0, 3.0), (0.02, 0.0, 6.0)),
            ),
        ]

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.render(t)[0] for t in range(self.length))

    def render(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Frame ``t`` uint8 RGB [H, W, 3] and its labels uint8 [H, W] (0 background, 1 to 3)."""
        time = t / max(1, self.length - 1)
        frame = self._camera(time)
        labels = np.zeros((self.height, self.width), np.uint8)
        for i in (1, 0, 2):  # from the back to the front
            self._cut_outs[i].draw(frame, labels, i + 1, time)
        light = 1 + 0.06 * np.sin(5 * time)
        noise = np.random.default_rng(t).normal(0, 3, frame.shape)
        return np.clip(frame * light + noise, 0, 255).astype(np.uint8), labels

    def _camera(self, time: float) -> np.ndarray:
        """The background as a camera sees it that pans to the right and closes in."""
        height, width = self._background.shape[:2]
        zoom = max(self.width / width, self.height / height) * (1.25 + 0.15 * time)
        x = width / 2 + (time - 0.5) * 0.12 * width
        y = height / 2 + 0.02 * height * np.sin(6 * time)
        matrix = np.float32([[zoom, 0, self.width / 2 - zoom * x], [0, zoom, self.height / 2 - zoom * y]])
        return cv2.warpAffine(
            self._background,
            matrix,
            (self.width, self.height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REFLECT_101,
        )


def write(root: str | Path, name: str = "synthetic", video: SyntheticVideo | None = None) -> Path:
    """Write a video in the DEMO layout below ``root``: frames, the first mask, and the truth of all frames."""
    video = video or SyntheticVideo()
    demo = Path(root) / "valid_demo"
    for t in range(len(video)):
        frame, labels = video.render(t)
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        with replacing(demo / "JPEGImages" / name / f"{t:05d}.jpg") as temporary:
            temporary.write_bytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
        write_mask(demo / "Truth" / name / f"{t:05d}.png", labels)
        if t == 0:
            write_mask(demo / "Annotations" / name / f"{t:05d}.png", labels)
    return Path(root)


if __name__ == "__main__":
    write(sys.argv[1])
