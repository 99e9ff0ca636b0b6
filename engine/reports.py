"""What goes into the reports of the evaluation entries: report.html beside the results."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from datasets.annotated import AnnotatedVideo
from datasets.davis import Davis
from datasets.video import read_frame, read_image
from engine.directions import Labelled
from utils.confidence import ConfidenceLog
from utils.masks import read_mask
from utils.metrics import ObjectScore, summarize
from utils.report import Section, write_report
from utils.visualization import overlay

WORST = 3  # frames shown of a video


def report_davis(davis: Davis, scores: Mapping[str, list[ObjectScore]], folder: Path, settings: dict) -> Path:
    """Write ``folder``/report.html: curves of J and F, and the worst frames beside the truth. Returns its path."""
    sections = []
    for name in davis.names:
        curves = {}
        for score in scores[name]:
            curves |= {f"J {score.name}": score.j, f"F {score.name}": score.f}
        quality = np.mean(list(curves.values()), axis=0)
        files = davis.scored_frames(name)
        pictures = []
        for t in sorted(np.argsort(quality, kind="stable")[:WORST]):
            frame = read_image(davis.root / "JPEGImages" / "480p" / name / f"{files[t].stem}.jpg")
            pair = [
                overlay(frame, labels) for labels in (read_mask(folder / name / files[t].name), davis.read(files[t]))
            ]
            pictures.append((f"frame {files[t].stem}: predicted, true; J&F {100 * quality[t]:.1f}", np.hstack(pair)))
        sections.append(Section(name, curves, pictures))
    overall = summarize([score for name in davis.names for score in scores[name]])
    path = folder / "report.html"
    write_report(path, f"DAVIS {davis.year} {davis.split}", overall, sections, settings)
    return path


class ConfidenceReport:
    """Collects the confidence of videos without public truth while they are segmented."""

    def __init__(self):
        self.logs: dict[str, ConfidenceLog] = {}

    @contextlib.contextmanager
    def watch(self, video: AnnotatedVideo) -> Iterator:
        """What is called with each labelled frame of the video."""
        log = self.logs[video.name] = ConfidenceLog()

        def add(item: Labelled) -> None:
            log.add(item.name, item.confidence, item.given)

        yield add


def report_confidence(
    videos: list[AnnotatedVideo], logs: Mapping[str, ConfidenceLog], folder: Path, target: Path, settings: dict
) -> None:
    """Write a report without truth: curves of confidence, and the least sure of the frames that were written."""
    sections = []
    for video in videos:
        log = logs.get(video.name)
        if log is None:
            continue
        curves = {f"confidence of object {k}": values for k, values in sorted(log.by_object.items())}
        known = [np.nanmin([values[t] for values in curves.values()] or [1.0]) for t in range(len(log.names))]
        written = [t for t, name in enumerate(log.names) if (folder / video.name / f"{name}.png").is_file()]
        pictures = []
        for t in sorted(sorted(written, key=known.__getitem__)[:WORST]):
            labels = read_mask(folder / video.name / f"{log.names[t]}.png")
            picture = overlay(read_frame(video.frames, t), labels)
            pictures.append((f"frame {log.names[t]}: confidence {known[t]:.2f}", picture))
        sections.append(Section(video.name, curves, pictures))
    note = {"scores": "none: the truth of this set is not public; the curves are the program's own confidence"}
    write_report(target, "YouTube-VOS", {}, sections, note | settings)
