"""Frames to what the encoder takes, and the augmentations of training."""

import cv2
import numpy as np

# Lab as OpenCV makes it from floats: L in 0..100, a and b in -127..127 (Section 4.1)
_MEAN = np.array([50, 0, 0], np.float32)
LAB_SCALE = np.array([50, 127, 127], np.float32)


def to_lab(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] -> float32 CIE Lab [3, H, W], each channel in about -1..1."""
    lab = cv2.cvtColor(np.multiply(frame, np.float32(1 / 255), dtype=np.float32), cv2.COLOR_RGB2LAB)
    return np.ascontiguousarray(((lab - _MEAN) / LAB_SCALE).transpose(2, 0, 1))


def squash(frames: list[np.ndarray], size: int, rng: np.random.Generator, zoom=None) -> list[np.ndarray]:
    """The paper's: every frame resized to size x size, whatever its shape."""
    return [cv2.resize(frame, (size, size), interpolation=cv2.INTER_LINEAR) for frame in frames]


def random_crop(
    frames: list[np.ndarray], size: int, rng: np.random.Generator, zoom: tuple[float, float] = (0.6, 1.2)
) -> list[np.ndarray]:
    """One crop, the same for all frames, at ``zoom`` times the size of a frame with short side 256, every ratio alike.

    Keeps the shape of things; half the samples are mirrored.
    """
    height, width = frames[0].shape[:2]
    factor = np.exp(rng.uniform(*np.log(zoom))) * 256 / min(height, width)
    side = int(np.clip(size / factor, 16, min(height, width)))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    mode = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    crops = [cv2.resize(f[top : top + side, left : left + side], (size, size), interpolation=mode) for f in frames]
    if rng.random() < 0.5:
        crops = [np.ascontiguousarray(crop[:, ::-1]) for crop in crops]
    return crops


AUGMENTATIONS = {"squash": squash, "crop": random_crop}
