"""A first mask without a paint program: boxes or clicks, completed along the edges of the picture (GrabCut)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.errors import UserError

ROUNDS = 6
LEAST = 0.05  # an object fills at least this share of its box


def mask_from_boxes(frame: np.ndarray, boxes: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
    """Labels uint8 [H, W]: what stands out in each box (x, y, width, height) in pixels is one object.

    Args:
        frame: uint8 RGB [H, W, 3].

    Raises:
        UserError: a box is outside the frame or too small.
    """
    height, width = frame.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    for number, (x, y, w, h) in enumerate(boxes, start=1):
        left, top, right, bottom = max(0, x), max(0, y), min(width, x + w), min(height, y + h)
        if right - left < 4 or bottom - top < 4:
            raise UserError(
                f"--box {x},{y},{w},{h}: not a box of 4x4 pixels or more inside the frame of {width}x{height}"
            )
        hints = np.full((height, width), cv2.GC_BGD, np.uint8)
        hints[top:bottom, left:right] = cv2.GC_PR_FGD
        found = _grab_cut(frame, hints)
        if found.sum() < LEAST * w * h:  # it looks like what is around it: be sure of the middle
            middle, axes = ((left + right) // 2, (top + bottom) // 2), ((right - left) // 4, (bottom - top) // 4)
            found = _grab_cut(frame, cv2.ellipse(hints.copy(), middle, axes, 0, 0, 360, int(cv2.GC_FGD), -1))
        labels[found] = number
    return labels


def mask_from_points(frame: np.ndarray, objects: Sequence[Sequence[tuple[int, int, bool]]]) -> np.ndarray:
    """Labels uint8 [H, W]: each list of points (x, y, whether it is on the object) gives one object.

    Args:
        frame: uint8 RGB [H, W, 3].

    Raises:
        UserError: a point is outside the frame, or no point is on the object.
    """
    height, width = frame.shape[:2]
    labels = np.zeros((height, width), np.uint8)
    sure, reach = max(3, min(height, width) // 60), min(height, width) // 4
    for number, points in enumerate(objects, start=1):
        on = [(x, y) for x, y, positive in points if positive]
        if not on:
            raise UserError("--points: at least one point of each object must be on it")
        hints = np.full((height, width), cv2.GC_BGD, np.uint8)
        for x, y in on:
            cv2.circle(hints, (x, y), reach, int(cv2.GC_PR_BGD), -1)
        for x, y, positive in points:
            if not (0 <= x < width and 0 <= y < height):
                raise UserError(f"--points {x},{y}: outside the frame of {width}x{height}")
            if positive:
                cv2.circle(hints, (x, y), 4 * sure, int(cv2.GC_PR_FGD), -1)
        for x, y, positive in points:
            cv2.circle(hints, (x, y), sure, int(cv2.GC_FGD if positive else cv2.GC_BGD), -1)
        found = _grab_cut(frame, hints)
        # What hangs together with a point; GrabCut also finds whatever has the same colours elsewhere
        _, parts = cv2.connectedComponents(found.astype(np.uint8))
        labels[np.isin(parts, [parts[y, x] for x, y in on if found[y, x]]) & found] = number
    return labels


def _grab_cut(frame: np.ndarray, hints: np.ndarray) -> np.ndarray:
    """bool [H, W]; GrabCut draws random numbers, so OpenCV's generator is set first."""
    cv2.setRNGSeed(0)
    hints = hints.copy()  # GrabCut answers in it
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    cv2.grabCut(bgr, hints, None, np.zeros((1, 65)), np.zeros((1, 65)), ROUNDS, cv2.GC_INIT_WITH_MASK)
    return (hints == cv2.GC_FGD) | (hints == cv2.GC_PR_FGD)
