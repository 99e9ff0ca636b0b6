"""Optical flow from the query frame to its memory frames (Section 3.3), for motion-aware matching.

An estimator is any callable

    (query uint8 RGB [H, W, 3], memories list of the same, gaps list of int) -> float32 [M, 2, h, w]

with h = ceil(H/4), w = ceil(W/4): the flow query -> memory as (dx, dy) in positions of stride 4. ``gaps`` says how
many frames lie between. A new estimator is one such class, named in :func:`flow_estimator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from utils import checkpoint
from utils.errors import UserError

STRIDE = 4
FlowEstimator = Callable[[np.ndarray, Sequence[np.ndarray], Sequence[int]], torch.Tensor]

NAMES = ("dis", "raft_large", "raft_small", "none")


def flow_estimator(
    name: str, *, weights: str | Path | None = None, device: str | torch.device = "cpu", updates: int | None = None
) -> FlowEstimator | None:
    """The built-in estimator of a name; None for "none", which leaves the search window where it is.

    Args:
        name: one of :data:`NAMES`.
        weights: a local file with RAFT's weights; None takes torchvision's (downloaded once).
        device: where RAFT runs.
        updates: RAFT's iterations; None means the paper's 2, or 5 across more than 15 frames.

    Raises:
        UserError: unknown name, or weights that cannot be had.
    """
    if name == "none":
        return None
    if name == "dis":
        return DIS()
    if name in ("raft_large", "raft_small"):
        return RAFT(name, weights=weights, device=device, updates=updates)
    raise UserError(f"unknown optical flow {name!r}; there are {', '.join(NAMES)}")


class DIS:
    """Dense Inverse Search from OpenCV: no weights, some 10 ms a memory frame at 480p.

    Args:
        reduction: it runs on grey frames this many times smaller; 2 loses nothing at stride 4.
        preset: OpenCV's, "ultrafast", "fast" or "medium".
    """

    def __init__(self, reduction: int = 2, preset: str = "medium"):
        self.reduction = reduction
        self._dis = cv2.DISOpticalFlow_create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}"))

    def __call__(self, query: np.ndarray, memories: Sequence[np.ndarray], gaps: Sequence[int]) -> torch.Tensor:
        height, width = (-(-side // STRIDE) for side in query.shape[:2])
        small = self._grey(query)
        scale = np.float32([width / small.shape[1], height / small.shape[0]])
        flows = []
        for memory in memories:
            flow = self._dis.calc(small, self._grey(memory), None)
            flows.append(cv2.resize(flow, (width, height), interpolation=cv2.INTER_AREA) * scale)
        return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)

    def _grey(self, frame: np.ndarray) -> np.ndarray:
        # DIS needs a few pixels at its coarsest level
        size = [max(16, side // self.reduction) for side in frame.shape[1::-1]]
        return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)


class RAFT:
    """RAFT from torchvision, the paper's choice. All memory frames of a query go through as one batch.

    Args:
        size: "raft_large" or "raft_small".
        weights: local file; None takes torchvision's weights enum, which downloads them once.
        updates: iterations; None means 2, or 5 where more than 15 frames lie between.
    """

    LONG_GAP = 15

    def __init__(
        self,
        size: str = "raft_large",
        *,
        weights: str | Path | None = None,
        device: str | torch.device = "cpu",
        updates: int | None = None,
    ):
        from torchvision.models import optical_flow  # slow to import, and only needed here

        kind = {"raft_large": optical_flow.Raft_Large_Weights, "raft_small": optical_flow.Raft_Small_Weights}[size]
        self.device, self.updates = torch.device(device), updates
        network = getattr(optical_flow, size)(weights=None, progress=False)
        if weights is None:
            try:
                values = kind.DEFAULT.get_state_dict(progress=False)
            except OSError as error:
                raise UserError(
                    f"--flow {size}: its weights cannot be downloaded from {kind.DEFAULT.url} ({error}); give a local "
                    "copy with --flow_weights FILE, or use --flow dis"
                ) from error
        else:
            values, _ = checkpoint.load(weights)
        try:
            network.load_state_dict({name.removeprefix("module."): value for name, value in values.items()})
        except RuntimeError as error:
            raise UserError(f"{weights}: not the weights of torchvision's {size}") from error
        self._network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(self, query: np.ndarray, memories: Sequence[np.ndarray], gaps: Sequence[int]) -> torch.Tensor:
        height, width = query.shape[:2]
        target = self._batch(memories)
        flow = torch.empty(len(memories), 2, -(-height // STRIDE), -(-width // STRIDE))
        updates = [self.updates or (5 if gap > self.LONG_GAP else 2) for gap in gaps]
        for count in set(updates):
            these = [i for i, update in enumerate(updates) if update == count]
            source = self._batch([query]).expand(len(these), -1, -1, -1)
            full = self._network(source, target[these], num_flow_updates=count)[-1][..., :height, :width]
            flow[these] = F.avg_pool2d(full, STRIDE, ceil_mode=True, count_include_pad=False).cpu() / STRIDE
        return flow

    def _batch(self, frames: Sequence[np.ndarray]) -> torch.Tensor:
        """float [M, 3, H', W'] in -1..1; H' and W' multiples of 8 and at least RAFT's 128."""
        batch = torch.from_numpy(np.stack(frames)).to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        height, width = batch.shape[-2:]
        below, right = max(128, -(-height // 8) * 8) - height, max(128, -(-width // 8) * 8) - width
        return F.pad(batch, (0, right, 0, below), mode="replicate")
