"""Label maps as files: the indexed PNGs of DAVIS and YouTube-VOS."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.checkpoint import replacing
from utils.errors import UserError


def _davis_palette() -> np.ndarray:
    """uint8 [256, 3]: bit i of a label's binary triples goes to the high bits of R, G, B (Pascal VOC's)."""
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return palette


PALETTE = _davis_palette()


def read_mask(path: str | Path, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Labels uint8 [H, W] of an indexed or grey PNG, as they stand in the file.

    Args:
        shape: (H, W) of the frame that the mask belongs to, to be checked.

    Raises:
        UserError: missing, unreadable, RGB instead of indexed, more than 255 objects, or of another size.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            if mode not in ("P", "L", "1", "I;16", "I"):
                raise UserError(
                    f"{path}: a {mode} image, not a mask; save it as an indexed (palette) or grey PNG whose pixel "
                    "values are the object numbers"
                )
            labels = np.array(image)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such mask file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a readable PNG mask ({error})") from error
    if labels.max(initial=0) > 255:
        raise UserError(f"{path}: holds label {labels.max()}; at most 255 objects (labels 1 to 255) are supported")
    if shape is not None and labels.shape != tuple(shape):
        height, width = labels.shape
        raise UserError(
            f"{path}: the mask is {width}x{height} but its frame is {shape[1]}x{shape[0]}; make them the same size"
        )
    return labels.astype(np.uint8)


def write_mask(path: str | Path, labels: np.ndarray) -> None:
    """Write labels uint8 [H, W] as a palette PNG in the colours of DAVIS; never half a file."""
    image = Image.fromarray(labels, mode=None).convert("L")
    image.putpalette(PALETTE.tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
