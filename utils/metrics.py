"""J (region similarity) and F (contour accuracy) of the DAVIS benchmark, as its official tool computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

CONTOUR_TOLERANCE = 0.008  # of the image's diagonal


def jaccard(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Intersection over union of two bool masks [H, W]; 1 if both are empty."""
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def contour(mask: np.ndarray) -> np.ndarray:
    """bool [H, W] -> uint8 [H, W]: 1 where a pixel differs from its right, lower or lower right neighbour."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    edge = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
    edge[-1, -1] = False
    return edge.astype(np.uint8)


def boundary_f(truth: np.ndarray, prediction: np.ndarray) -> float:
    """F measure of the contours of two bool masks [H, W], matched within 0.8 % of the diagonal.

    1 if both have no contour, 0 if only one has.
    """
    reach = math.ceil(CONTOUR_TOLERANCE * np.linalg.norm(truth.shape))
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x * x + y * y <= reach * reach).astype(np.uint8)
    true_edge, edge = contour(truth), contour(prediction)
    true_count, count = np.count_nonzero(true_edge), np.count_nonzero(edge)
    if not true_count or not count:
        return float(true_count == count)
    precision = np.count_nonzero(edge & cv2.dilate(true_edge, disk)) / count
    recall = np.count_nonzero(true_edge & cv2.dilate(edge, disk)) / true_count
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def statistics(values: np.ndarray) -> tuple[float, float, float]:
    """(mean, recall, decay) of a measure over the frames of one object.

    Recall is the share of frames above 0.5; decay is the mean of the first quarter less that of the last.
    """
    bounds = np.round(np.linspace(1, len(values), 5) + 1e-10).astype(int) - 1
    first, last = values[bounds[0] : bounds[1] + 1], values[bounds[3] : bounds[4] + 1]
    return float(np.mean(values)), float(np.mean(values > 0.5)), float(np.mean(first) - np.mean(last))


@dataclass(frozen=True)
class ObjectScore:
    """J and F of one object in every scored frame: float [frames]."""

    name: str
    j: np.ndarray
    f: np.ndarray


def score_object(name: str, truth: list[np.ndarray], prediction: list[np.ndarray]) -> ObjectScore:
    """Score bool masks [H, W], frame by frame."""
    pairs = list(zip(truth, prediction, strict=True))
    return ObjectScore(name, np.array([jaccard(*p) for p in pairs]), np.array([boundary_f(*p) for p in pairs]))


def summarize(scores: list[ObjectScore]) -> dict[str, float]:
    """The official global results: each statistic, averaged over objects. Keys as in the official CSV."""
    j = np.mean([statistics(score.j) for score in scores], axis=0)
    f = np.mean([statistics(score.f) for score in scores], axis=0)
    return {
        "J&F-Mean": float(j[0] + f[0]) / 2,
        "J-Mean": float(j[0]),
        "J-Recall": float(j[1]),
        "J-Decay": float(j[2]),
        "F-Mean": float(f[0]),
        "F-Recall": float(f[1]),
        "F-Decay": float(f[2]),
    }
