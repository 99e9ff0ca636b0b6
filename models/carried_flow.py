"""Optical flow that is carried along with the video, for the memory frames that stay while it goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import torch

from models.optical_flow import FlowEstimator

WINDOW = 5  # positions on a side; the surroundings by which two flows are compared
RECENT = 8  # frames that are carried along though this query does not read them: later ones may


class CarriedFlow:
    """Of two flows to a frame some time ago, at each position the one that explains the picture better.

    Estimated directly, flow across a long gap loses what moved far or turned. Carried on from frame to frame (the
    flow to the last frame, and from there on), it keeps to that, but errors add up. Their pictures tell which is
    right: the memory frame moved by the flow must look like the query.

    Args:
        estimator: for the flow between two frames.
    """

    def __init__(self, estimator: FlowEstimator):
        self.estimator = estimator
        self._carried: dict[int, dict[int, np.ndarray]] = {}  # of the last queries: float32 [h, w, 2] by frame

    def __call__(self, query: np.ndarray, memory: Mapping[int, np.ndarray], time: int) -> torch.Tensor:
        """Flow from frame ``time`` to those it reads.

        Args:
            query: uint8 RGB [H, W, 3]; memory: the same, by number of the frame, all < time.

        Returns:
            float32 [M, 2, h, w], see :mod:`models.optical_flow`, in the order of ``memory``.
        """
        direct = self.estimator(query, list(memory.values()), [time - t for t in memory]).cpu()
        flows = {t: flow.permute(1, 2, 0).numpy() for t, flow in zip(memory, direct, strict=True)}
        carried = self._carry_on(flows, time)
        size = direct.shape[:-3:-1]
        picture = _picture(query, size)
        for t in flows.keys() & carried.keys() - {time - 1}:
            flows[t] = _better(picture, _picture(memory[t], size), flows[t], carried[t])
        return torch.from_numpy(np.stack(list(flows.values()))).permute(0, 3, 1, 2)

    def _carry_on(self, direct: Mapping[int, np.ndarray], time: int) -> Mapping[int, np.ndarray]:
        """The flows of the last query, carried on to this one, and the one to the last query."""
        before, now = self._carried.get(time - 1, {}), {}
        if time - 1 in direct:
            step = direct[time - 1]
            kept = {t for t in before if t in direct or t >= time - RECENT}
            now = {t: step + _moved(before[t], step) for t in kept} | {time - 1: step}
        # A frame that was looked ahead at may be asked for again, so the query before it is kept too
        self._carried = {time - 1: before, time: now}
        return now


def _picture(frame: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """float32 [h, w, 3], CIE Lab at the flow's resolution."""
    return cv2.cvtColor(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)


def _moved(x: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """x [h, w, C] sampled where the flow [h, w, 2] points to; beyond the frame, at its edge."""
    height, width = flow.shape[:2]
    to = flow + np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return cv2.remap(x, to.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _better(query: np.ndarray, memory: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of two flows, at each position the one whose picture is closer around it; of equal ones the first."""
    errors = [cv2.blur(np.abs(query - _moved(memory, flow)).sum(2), (WINDOW, WINDOW)) for flow in (one, other)]
    return np.where((errors[1] < errors[0])[..., None], other, one)
