"""Label maps as files: the indexed PNGs of DAVIS and YouTube-VOS, and what people draw by hand."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from utils.checkpoint import replacing
from utils.errors import UserError

log = logging.getLogger(__name__)


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
    with _opened(path) as image:
        if image.mode not in ("P", "L", "1", "I;16", "I"):
            raise UserError(
                f"{path}: a {image.mode} image, not a mask; save it as an indexed (palette) or grey PNG whose pixel "
                "values are the object numbers"
            )
        labels = np.array(image)
    if labels.max(initial=0) > 255:
        raise UserError(f"{path}: holds label {labels.max()}; at most 255 objects (labels 1 to 255) are supported")
    check_size(path, labels.shape, shape)
    return labels.astype(np.uint8)


@contextlib.contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """An image file, or a UserError that names it."""
    try:
        with Image.open(path) as image:
            image.load()
            yield image
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such mask file") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a readable PNG mask ({error})") from error


def check_size(path: str | Path, size: tuple[int, ...], frame: tuple[int, int] | None) -> None:
    """A UserError if a mask's (H, W) is not that of its frame."""
    if frame is not None and tuple(size) != tuple(frame):
        raise UserError(
            f"{path}: the mask is {size[1]}x{size[0]} but its frame is {frame[1]}x{frame[0]}; make them the same size"
        )


class HandMadeMasks:
    """Reads masks as people save them, and says what it took them for; one colour is one object in all of them.

    Understood are indexed and grey images whose values are object numbers, black and white ones (one object),
    and coloured ones, black or transparent where there is nothing: colours of DAVIS's palette mean its numbers,
    others are numbered as they turn up, the largest first. Blended colours at soft edges go to the nearest
    true one.
    """

    def __init__(self):
        self._numbers: dict[tuple[int, int, int], int] = {}

    def read(self, path: str | Path, shape: tuple[int, int] | None = None) -> np.ndarray:
        """Labels uint8 [H, W]; arguments and errors as for :func:`read_mask`."""
        with _opened(path) as image:
            coloured = image.mode in ("RGB", "RGBA", "LA", "PA")
            pixels = np.array(image.convert("RGBA")) if coloured else None
        if pixels is None:
            labels = read_mask(path, shape)
            values = np.unique(labels)
            if 255 in values:  # the one object of a black and white mask; beside others, DAVIS's "void"
                alone = set(values) <= {0, 255}
                labels = (labels > 0).astype(np.uint8) if alone else np.where(labels == 255, 0, labels)
                log.info("%s: %s", path, "black and white, object 1" if alone else "255 is taken for void")
        else:
            check_size(path, pixels.shape[:2], shape)
            pixels[pixels[..., 3] < 128] = 0
            labels = self._by_colour(pixels[..., :3], path)
        log.info("%s: objects %s", path, ", ".join(map(str, np.unique(labels[labels > 0]))) or "none")
        return labels

    def _by_colour(self, pixels: np.ndarray, path: str | Path) -> np.ndarray:
        colours, which, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True, return_counts=True)
        # A colour of its own fills 3x3 pixels somewhere; the blends at soft edges are thinner
        which = which.reshape(pixels.shape[:2]).astype(np.int32)
        blocks = np.lib.stride_tricks.sliding_window_view(which, (3, 3))
        uniform = (blocks == blocks[..., 1:2, 1:2]).all((2, 3))
        true = np.isin(np.arange(len(colours)), which[1:-1, 1:-1][uniform]) | ~colours.any(1)
        flat = (pixels[:, 1:] == pixels[:, :-1]).all(2).mean()  # how much of it has one colour with its neighbour
        if flat < 0.7 or true.sum() > 256:
            raise UserError(
                f"{path}: {len(colours)} colours, so it is a picture and not a mask; paint each object in one"
            )
        main = colours[true]
        for colour in main[np.argsort(-counts[true], kind="stable")]:
            self._number(tuple(map(int, colour)))
        distance = np.abs(colours[:, None].astype(np.int16) - main[None]).sum(2)
        numbers = np.array([self._numbers.get(tuple(map(int, colour)), 0) for colour in main], np.uint8)
        log.info(
            "%s: colours, %s",
            path,
            ", ".join(f"{tuple(map(int, c))} is {self._number(tuple(map(int, c)))}" for c in main if c.any()),
        )
        return numbers[distance.argmin(1)][which]

    def _number(self, colour: tuple[int, int, int]) -> int:
        """The object of a colour: the one it had before, the palette's, or the first number that is free."""
        if colour == (0, 0, 0):
            return 0
        if colour not in self._numbers:
            taken = set(self._numbers.values())
            of_palette = {tuple(map(int, c)): i for i, c in enumerate(PALETTE)}.get(colour)
            free = next(i for i in range(1, 257) if i not in taken)
            self._numbers[colour] = of_palette if of_palette and of_palette not in taken else free
        return self._numbers[colour]


def write_mask(path: str | Path, labels: np.ndarray) -> None:
    """Write labels uint8 [H, W] as a palette PNG in the colours of DAVIS; never half a file."""
    image = Image.fromarray(labels, mode=None).convert("L")
    image.putpalette(PALETTE.tobytes())
    with replacing(path) as temporary:
        image.save(temporary, format="PNG")
