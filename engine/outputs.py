"""What a labelled video is turned into: overlay, cut-outs, COCO, a table, a contact sheet. One class an output.

An output is made for one video, is a context manager, and is called with every :class:`Labelled` frame in the
order of time. Its files are complete or not there at all.
"""

from __future__ import annotations

import contextlib
import csv
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from datasets.annotated import AnnotatedVideo
from datasets.video import Selection
from datasets.video_writer import VideoWriter
from engine.directions import Labelled
from utils.checkpoint import replacing
from utils.confidence import ConfidenceLog
from utils.visualization import ContactSheet, overlay

log = logging.getLogger(__name__)

Output = Callable[[Labelled], None]

BOX = ["x", "y", "width", "height"]
COLUMNS = ["frame", "name", "seconds", "object", "area", *BOX, "centre_x", "centre_y", "confidence"]


@contextlib.contextmanager
def write_overlay(video: AnnotatedVideo, folder: Path) -> Iterator[Output]:
    """overlay.mp4: the frames with the objects tinted, outlined and numbered, at the video's pace, with its sound."""
    frames = video.frames
    chosen = frames if isinstance(frames, Selection) else Selection(frames)
    sound_from = chosen.source.time(chosen.start)
    with VideoWriter(folder / "overlay.mp4", frames.fps, sound=frames.path, sound_from=sound_from) as writer:

        def write(item: Labelled) -> None:
            time = frames.time(item.number)
            picture = overlay(item.frame, item.labels, numbers=True)
            writer.write(picture, time, frames.time(item.number + 1) - time)

        yield write


@contextlib.contextmanager
def write_summary(video: AnnotatedVideo, folder: Path) -> Iterator[Output]:
    """summary.png, a contact sheet."""
    sheet = ContactSheet()
    yield lambda item: sheet.add(overlay(item.frame, item.labels))
    with replacing(folder / "summary.png") as temporary:
        Image.fromarray(sheet.draw()).save(temporary, format="PNG")


@contextlib.contextmanager
def write_cutouts(video: AnnotatedVideo, folder: Path) -> Iterator[Output]:
    """cutouts/<object>/<frame>.png: the frame where the object is, transparent elsewhere."""

    def write(item: Labelled) -> None:
        for label in np.unique(item.labels[item.labels > 0]):
            alpha = np.uint8(255) * (item.labels == label)
            with replacing(folder / "cutouts" / str(label) / f"{item.name}.png") as temporary:
                Image.fromarray(np.dstack((item.frame, alpha))).save(temporary, format="PNG")

    yield write


@contextlib.contextmanager
def write_coco(video: AnnotatedVideo, folder: Path) -> Iterator[Output]:
    """coco.json: every object in every frame as compressed RLE, with a track_id that is its number.

    Annotations go to the file as they come, so a long video needs no more memory than a short one.
    """
    images: list[dict] = []
    objects: set[int] = set()
    count = 0
    with replacing(folder / "coco.json") as temporary, open(temporary, "w") as file:
        file.write('{"annotations": [')

        def write(item: Labelled) -> None:
            nonlocal count
            height, width = item.labels.shape
            images.append({"id": item.number, "file_name": item.name, "height": height, "width": width})
            for label in map(int, np.unique(item.labels[item.labels > 0])):
                encoded = rle.encode(np.asfortranarray(item.labels == label, np.uint8))
                about = {
                    "id": count + 1,
                    "image_id": item.number,
                    "category_id": label,
                    "track_id": label,
                    "area": int(rle.area(encoded)),
                    "bbox": rle.toBbox(encoded).tolist(),
                    "iscrowd": 0,
                    "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
                }
                file.write(("," if count else "") + "\n" + json.dumps(about))
                objects.add(label)
                count += 1

        yield write
        categories = [{"id": label, "name": f"object {label}"} for label in sorted(objects)]
        file.write(f'],\n"categories": {json.dumps(categories)},\n"images": {json.dumps(images)}}}\n')


@contextlib.contextmanager
def write_table(video: AnnotatedVideo, folder: Path) -> Iterator[Output]:
    """objects.csv: a row for every object so far in every frame; empty cells where it is lost."""
    known: set[int] = set()
    with replacing(folder / "objects.csv") as temporary, open(temporary, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)

        def write(item: Labelled) -> None:
            known.update(map(int, np.unique(item.labels[item.labels > 0])))
            seconds = f"{float(video.frames.time(item.number)):.4f}"
            for label in sorted(known):
                confidence = f"{item.confidence.get(label, 0.0):.4f}"
                table.writerow([item.number, item.name, seconds, label, *_place(item.labels == label), confidence])

        yield write


def _place(mask: np.ndarray) -> list:
    """Area, box (x, y, width, height) and centroid (x, y) of an object, in pixels."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(rows):
        return [0, "", "", "", "", "", ""]
    y, x = mask.nonzero()
    box = [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]
    return [len(x), *box, f"{x.mean():.2f}", f"{y.mean():.2f}"]


OUTPUTS = {
    "overlay": write_overlay,
    "summary": write_summary,
    "cutouts": write_cutouts,
    "coco": write_coco,
    "csv": write_table,
}


@contextlib.contextmanager
def write_all(video: AnnotatedVideo, folder: Path, names: list[str]) -> Iterator[Output]:
    """All outputs of these names; the log then says where objects were lost and which frames are worth a mask."""
    confidence = ConfidenceLog()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(OUTPUTS[name](video, folder)) for name in names if name in OUTPUTS]

        def write(item: Labelled) -> None:
            confidence.add(item.name, item.confidence, item.given)
            for writer in writers:
                writer(item)

        yield write
    for line in confidence.findings():
        log.info("%s: %s", video.name, line)
