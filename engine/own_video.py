"""A user's own video: which frames of it, and the masks to start from, in whatever way they were given."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from datasets.annotated import AnnotatedVideo
from datasets.video import Frames, Selection, list_images, open_frames, read_frame
from engine.options import numbers
from utils.errors import UserError
from utils.first_mask import mask_from_boxes, mask_from_points
from utils.masks import HandMadeMasks, write_mask

log = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say what to segment."""
    add = parser.add_argument
    add("--video", help="a video file, a folder of frames, or the number of a camera (then with --end)")
    add(
        "--mask",
        action="append",
        metavar="[FRAME=]FILE|FOLDER",
        help="the mask of the first frame, of frame FRAME (repeat it for several), or a folder of masks named by "
        "their frames. Indexed, grey, black-and-white and coloured images are understood",
    )
    add("--box", action="append", type=numbers(int), metavar="X,Y,W,H", help="instead of a mask: a box an object")
    add(
        "--points",
        action="append",
        type=_points,
        metavar="'X,Y X,Y,0 ...'",
        help="instead of a mask: points on an object, and with ,0 beside it; repeat it for more objects",
    )
    add("--on", type=int, metavar="FRAME", help="the frame that --box and --points are about; default: the first")
    add("--start", type=int, default=0, help="first frame to use, counted from 0")
    add("--end", type=int, help="first frame to leave out")
    add("--every", type=int, default=1, metavar="N", help="use every N-th frame")
    add(
        "--max-size",
        type=int,
        metavar="PIXELS",
        help="work at this length of the longer side; masks keep the full size",
    )


def _points(text: str) -> list[tuple[int, int, bool]]:
    """ "X,Y X,Y,0": points on an object, and beside it."""
    points = [numbers(int)(part) for part in text.split()]
    if not points or any(len(p) not in (2, 3) for p in points):
        raise argparse.ArgumentTypeError(f"{text!r}: points are X,Y or X,Y,0 with spaces in between")
    return [(p[0], p[1], len(p) == 2 or p[2] > 0) for p in points]


def check(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """End the program if options do not go together."""
    given = sum(bool(way) for way in (args.mask, args.box, args.points))
    if given > 1:
        parser.error("--mask, --box and --points are three ways to say the same; take one")
    if bool(args.video) != bool(given):
        parser.error("--video goes together with --mask, --box or --points")
    if any(len(box) != 4 for box in args.box or []):
        parser.error("--box takes X,Y,W,H")


def own_video(args: argparse.Namespace, output: Path) -> AnnotatedVideo:
    """The video of the command line; a mask made from boxes or points is written to ``output``/<video>.

    Raises:
        UserError: no such video, mask or frame.
    """
    source = open_frames(args.video)
    frames = Selection(source, args.start, args.end, args.every)
    name = Path(args.video).resolve().stem
    if args.mask:
        masks = _masks(args.mask, frames)
    else:
        on = frames.name(0) if args.on is None else _name_of(str(args.on), frames, Path("--on"))
        masks = {on: _make_mask(args, frames, on, output / name / "first_mask.png")}
    return AnnotatedVideo(name, frames, masks, read=HandMadeMasks().read)


def _masks(given: list[str], frames: Selection) -> dict[str, Path]:
    """Mask files by the name of their frame."""
    masks: dict[str, Path] = {}
    for text in given:
        frame, equals, file = text.partition("=")
        if not equals or Path(text).exists():
            frame, file = "", text
        path = Path(file)
        if path.is_dir():
            found = {image.stem: image for image in list_images(path)}
            if not found:
                raise UserError(f"{path}: no masks in this folder; name them like their frames, 00000.png")
            masks |= {name: image for name, image in found.items() if len(found) == 1 or _is_used(name, frames)}
        else:
            masks[_name_of(frame, frames, path) if frame else frames.name(0)] = path
    if not masks:
        raise UserError(f"{given[0]}: none of these masks is of a frame in use ({frames.name(0)}, ...)")
    return masks


def _name_of(frame: str, frames: Selection, mask: Path) -> str:
    """The name of a frame that is given by its name or its number."""
    source = frames.source
    i = source.index(frame)
    if i is None and frame.isdecimal():
        i = int(frame)
    if i is None or (len(source) and i >= len(source)):
        raise UserError(f"{mask}: a mask without its frame: there is no {frame} in {frames.path}")
    return source.name(i)


def _is_used(name: str, frames: Selection) -> bool:
    used = frames.index(name) is not None
    if not used:
        log.info("mask %s is left out: its frame is not in use", name)
    return used


def _make_mask(args: argparse.Namespace, frames: Selection, on: str, target: Path) -> Path:
    at = frames.index(on)
    if at is None:
        raise UserError(f"--on {on}: this frame is not among those in use")
    frame = read_frame(frames, at)
    labels = mask_from_boxes(frame, args.box) if args.box else mask_from_points(frame, args.points)
    write_mask(target, labels)
    log.info("made %s; edit it and pass it back with --mask if it is not right", target)
    return target


def working_scale(frames: Frames, max_size: int | None, scale: float) -> float:
    """The scale at which the longer side of frames is at most ``max_size``, and no larger than ``scale``."""
    if max_size is None:
        return scale
    if max_size < 32:
        raise UserError(f"--max-size {max_size}: must be 32 or more")
    return min(scale, max_size / max(read_frame(frames, 0).shape[:2]))
