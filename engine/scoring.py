"""Scores of masks that lie in files, and the official result files."""

from __future__ import annotations

import csv
import io
import logging
from pathlib import Path

from datasets.davis import Davis
from utils.checkpoint import replacing
from utils.errors import UserError
from utils.masks import read_mask
from utils.metrics import ObjectScore, score_object, statistics, summarize

log = logging.getLogger(__name__)


def score_sequence(davis: Davis, name: str, folder: Path) -> list[ObjectScore]:
    """Score the masks <folder>/<name>/<frame>.png of one sequence, object by object.

    Raises:
        UserError: a mask is missing, of another size, or holds an object that the sequence has not.
    """
    objects = davis.objects(name)
    truths, predictions = [], []
    for file in davis.scored_frames(name):
        truth, void = davis.truth(file)
        path = folder / name / file.name
        prediction = read_mask(path, truth.shape)
        if prediction.max() > objects:
            raise UserError(f"{path}: holds object {prediction.max()}, but {name} has {objects}")
        truths.append((truth, ~void))
        predictions.append(prediction)
    return [
        score_object(
            f"{name}_{i}",
            [(truth == i) & counts for truth, counts in truths],
            [(p == i) & counts for p, (_, counts) in zip(predictions, truths, strict=True)],
        )
        for i in range(1, objects + 1)
    ]


def report(scores: list[ObjectScore], folder: Path, split: str) -> dict[str, float]:
    """Write global_results-<split>.csv and per-sequence_results-<split>.csv, log them, and return the former."""
    overall = summarize(scores)
    _write_csv(folder / f"global_results-{split}.csv", list(overall), [list(overall.values())])
    rows = [[score.name, statistics(score.j)[0], statistics(score.f)[0]] for score in scores]
    _write_csv(folder / f"per-sequence_results-{split}.csv", ["Sequence", "J-Mean", "F-Mean"], rows)
    for name, j, f in rows:
        log.info("%-24s J&F %6.2f   J %6.2f   F %6.2f", name, 50 * (j + f), 100 * j, 100 * f)
    log.info("  ".join(f"{key} {100 * value:.2f}" for key, value in overall.items()))
    return overall


def _write_csv(path: Path, header: list[str], rows: list[list]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.8f}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    with replacing(path) as temporary:
        temporary.write_text(text.getvalue())
