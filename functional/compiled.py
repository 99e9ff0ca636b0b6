"""The backend for label maps on a CPU: one compiled loop over the positions that are not yet certain.

For each it walks the window of every memory frame, through the warp, and keeps the best scores in a heap.
Nothing is padded, warped, unfolded or sorted in memory. Numba compiles it at first use (some seconds) and
caches that. What is not label maps is left to the tiled backend.
"""

import threading

import numba
import numpy as np
import torch

from functional import tiled

correlate = tiled.correlate
attend = tiled.attend

_one_at_a_time = threading.Lock()  # not every threading layer of Numba may be entered twice


def attend_labels(
    query, memory, labels, source, num_labels, wanted, radius, top_k, border, metric, temperature, locality
):
    """See :func:`functional.tiled.attend_labels`."""
    if query.device.type != "cpu":
        raise ValueError(f"the compiled backend runs on a CPU, not on {query.device}; take tiled")
    height, width = query.shape[-2:]
    # Scores are divided by the temperature; for a squared distance, both sides by its root
    divisor = np.float32(temperature if metric == "dot" else temperature**0.5)
    queries = _channels_last(query) / divisor
    keys = _channels_last(memory)
    if metric == "l2":
        keys = keys / divisor
    if source is None:
        source = torch.arange(height * width).expand(len(memory), -1)
    row_of_keys = source + height * width * torch.arange(len(memory))[:, None]
    source = torch.where(labels.flatten(1) >= 0, row_of_keys, -1).int().numpy()
    labels = labels.flatten(1).numpy()
    positions = wanted.flatten().nonzero()[:, 0].int().numpy()
    solved = np.zeros((len(positions), num_labels), np.float32)
    exclude, l2 = border == "exclude", metric == "l2"
    with _one_at_a_time:
        numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        _solve(
            queries,
            keys,
            source,
            labels,
            positions,
            height,
            width,
            radius,
            top_k,
            exclude,
            l2,
            np.float32(locality),
            solved,
        )
    out = query.new_zeros(num_labels, height * width)
    out[:, torch.from_numpy(positions).long()] = torch.from_numpy(solved).T.to(query.dtype)
    return out.view(num_labels, height, width)


def _channels_last(x: torch.Tensor) -> np.ndarray:
    """[..., C, H, W] -> float32 [N, C], contiguous; free if the encoder ran in channels_last."""
    return x.movedim(-3, -1).flatten(0, -2).float().contiguous().numpy()


# Reassociation lets the sums over channels be vectorised; infinities and NaN keep their meaning
_FAST = {"reassoc", "contract", "nsz"}


@numba.njit(fastmath=_FAST, cache=True, nogil=True, inline="always")
def _score(query, keys, at, l2):
    """The dot product with row ``at`` of the keys, or the negative squared distance."""
    total = np.float32(0)
    if l2:
        for c in range(query.shape[0]):
            difference = query[c] - keys[at, np.uintp(c)]
            total -= difference * difference
    else:
        for c in range(query.shape[0]):
            total += query[c] * keys[at, np.uintp(c)]
    return total


@numba.njit(cache=True, nogil=True)
def _replace_lowest(scores, labels, score, label):
    """Replace the root of a min-heap and let the new element sink to its place."""
    count, at = scores.shape[0], 0
    while True:
        child = 2 * at + 1
        if child >= count:
            break
        if child + 1 < count and scores[child + 1] < scores[child]:
            child += 1
        if scores[child] >= score:
            break
        scores[at], labels[at] = scores[child], labels[child]
        at = child
    scores[at], labels[at] = score, label


@numba.njit(fastmath=_FAST, cache=True, parallel=True, nogil=True)
def _solve(queries, keys, source, labels, positions, height, width, radius, top_k, exclude, l2, locality, solved):
    """For each position [N] add its labels' shares to solved [N, K].

    queries [H*W, C]; keys [M*H*W, C]; source int32 [M, H*W], the row of keys that stands at a position of
    memory frame m, -1 for none; labels int16 [M, H*W].
    """
    for n in numba.prange(positions.shape[0]):
        query = queries[positions[n]]
        y, x = positions[n] // width, positions[n] % width
        best = np.full(top_k, -np.inf, np.float32)
        best_labels = np.full(top_k, -1, np.int16)
        outside = -(query * query).sum() if l2 else np.float32(0)  # zero features, no label
        # The latest frame and the nearest rows first: good candidates early mean few changes of the heap
        for m in range(source.shape[0] - 1, -1, -1):
            for step in range(2 * radius + 1):
                dy = (step + 1) // 2 * (1 if step % 2 else -1)
                for dx in range(-radius, radius + 1):
                    score, label = outside, np.int16(-1)
                    at = (y + dy) * width + x + dx
                    if 0 <= y + dy < height and 0 <= x + dx < width and source[m, at] >= 0:
                        score = _score(query, keys, np.uintp(source[m, at]), l2)
                        label = labels[m, at]
                    elif exclude:
                        continue
                    score -= locality * np.float32(dy * dy + dx * dx)
                    if score > best[0]:
                        _replace_lowest(best, best_labels, score, label)
        highest = best.max()
        total = np.float32(0)
        for k in range(top_k):
            if best[k] > -np.inf:
                share = np.exp(best[k] - highest)
                total += share
                if best_labels[k] >= 0:
                    solved[n, best_labels[k]] += share
        if total > 0:
            solved[n] /= total
