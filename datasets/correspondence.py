"""Which position of one frame shows what a position of another does, by optical flow: a teacher without labels."""

import cv2
import numpy as np

STRIDE = 4


def matches(query: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Where the positions of stride 4 of one frame are in another, as far as that is sure.

    Args:
        query, memory: uint8 RGB [H, W, 3], H and W multiples of 4, at least 32.

    Returns:
        int64 [H/4 * W/4], indices into the memory's positions; -1 where the flow leaves the frame or does
        not lead back to where it came from (an occlusion, or a wrong flow).
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (query, memory)]
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    forth, back = dis.calc(*grey, None), dis.calc(*grey[::-1], None)
    height, width = grey[0].shape
    there = forth + np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    nowhere = (1e6, 1e6)
    returned = cv2.remap(back, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=nowhere)
    # A pixel, and some for long ways: what the flow itself is off by
    sure = np.abs(forth + returned).max(-1) < 1 + 0.05 * np.abs(forth).max(-1)

    rows, columns = height // STRIDE, width // STRIDE
    flow = cv2.resize(forth, (columns, rows), interpolation=cv2.INTER_AREA) / STRIDE
    x = np.rint(flow[..., 0] + np.arange(columns)).astype(np.int64)
    y = np.rint(flow[..., 1] + np.arange(rows)[:, None]).astype(np.int64)
    inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
    return np.where(inside & sure[STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE], y * columns + x, -1).ravel()
