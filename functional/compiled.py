"""The backend for label maps on a CPU: compiled loops over the positions that are not yet certain.

Positions are worked off in tiles of 4x4, whose sixteen scores with a key are one vector (functional/lanes.py).
Nothing is padded, warped, unfolded or sorted: every tile scores all keys of its window, straight from where the
warp found them, and bisects for the score that as many candidates reach as may vote. Numba compiles it
at first use (some seconds) and caches that. What is not label maps is left to the tiled backend.
"""

import threading

import numba
import numpy as np
import torch
import torch.nn.functional as F

from functional import tiled
from functional.lanes import KEYS, LANES, count_at_least, lanes_at_least, lowest_bit, score_block_dot, score_block_l2
from functional.scores import OTHER_COLOUR

correlate = tiled.correlate
attend = tiled.attend

TILE = 4
assert TILE * TILE == LANES

_one_at_a_time = threading.Lock()  # not every threading layer of Numba may be entered twice


def attend_labels(query, memory, labels, source, num_labels, wanted, colours, matching):
    """See :func:`functional.tiled.attend_labels`."""
    radius, top_k, border, metric, temperature, locality = matching
    if query.device.type != "cpu":
        raise ValueError(f"the compiled backend runs on a CPU, not on {query.device}; take tiled")
    height, width = query.shape[-2:]
    # Scores are divided by the temperature; for a squared distance, both sides by its root
    divisor = np.float32(temperature if metric == "dot" else temperature**0.5)
    queries = _channels_last(query) / divisor
    keys = _channels_last(memory)
    if metric == "l2":
        keys = keys / divisor
    exclude = border == "exclude"
    if not exclude:  # what is outside takes part with zero features: one more key
        keys = np.concatenate((keys, np.zeros_like(keys[:1])))
    if source is None:
        source = torch.arange(height * width).expand(len(memory), -1)
    row_of_keys = source + height * width * torch.arange(len(memory))[:, None]
    source = torch.where(labels[:, 0].flatten(1) >= 0, row_of_keys, -1).int().numpy()
    tiles = F.max_pool2d(wanted[None].float(), TILE, ceil_mode=True)[0].nonzero().int().numpy()
    solved = np.zeros((height * width, num_labels, labels.shape[1]), np.float32)
    labels = labels.permute(0, 2, 3, 1).flatten(0, 2).contiguous().numpy()
    own, seen = [c.movedim((-2, -1), (-4, -3)).flatten(0, -3).float().contiguous().numpy() for c in colours]
    bias = _bias(radius, locality)
    with _one_at_a_time:
        threads = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)
        numba.set_num_threads(threads)
        _solve(
            queries, keys, source, labels, own, seen, tiles, wanted.numpy(), bias, top_k, exclude, metric == "l2",
            threads, solved,
        )  # fmt: skip
    return torch.from_numpy(solved).permute(1, 2, 0).to(query.dtype).unflatten(2, (height, width))


def _channels_last(x: torch.Tensor) -> np.ndarray:
    """[..., C, H, W] -> float32 [N, C], contiguous; free if the encoder ran in channels_last."""
    return x.movedim(-3, -1).flatten(0, -2).float().contiguous().numpy()


def _bias(radius: int, locality: float) -> np.ndarray:
    """float32 [S*S + 1, LANES], what a place of a tile's window (S = TILE + 2R) adds to scores.

    -inf for the positions of the tile that it is too far from, and in the last row, which is no place.
    """
    offset = np.arange(TILE + 2 * radius)[:, None] - radius - np.arange(TILE)
    far = abs(offset) > radius
    distance = (offset**2)[:, None, :, None] + (offset**2)[None, :, None, :]
    bias = np.where(far[:, None, :, None] | far[None, :, None, :], -np.inf, -locality * distance)
    return np.append(bias.reshape(-1, LANES), np.full((1, LANES), -np.inf), axis=0).astype(np.float32)


@numba.njit(cache=True, parallel=True, nogil=True)
def _solve(queries, keys, source, labels, own, seen, tiles, wanted, bias, top_k, exclude, l2, threads, solved):
    """Write the labels' shares of each tile's wanted positions into solved [H*W, K, F].

    Args:
        queries: float32 [H*W, C]; keys: float32 [N, C], unless ``exclude`` with a row of zeros at the end.
        source: int32 [M, H*W], the row of keys that stands at a position of memory frame m, -1 for none.
        labels: int16 [M*H*W, F], of each position of the warped memory.
        own, seen: float32 [H*W, F, D] and [M*H*W, F, D], colours of the query and the memory, not warped.
        tiles: int32 [T, 2], row and column; wanted: bool [H, W]; bias: see :func:`_bias`.
    """
    most = source.shape[0] * (bias.shape[0] - 1) + KEYS
    outside = -1 if exclude else keys.shape[0] - 1
    for thread in numba.prange(threads):
        query = np.zeros((keys.shape[1], LANES), np.float32)
        rows, places, held = np.zeros(most, np.int32), np.zeros(most, np.int32), np.zeros(most, np.int32)
        scores = np.empty((most, LANES), np.float32)
        highest = np.empty((most // KEYS + 1, LANES), np.float32)
        for n in range(thread, tiles.shape[0], threads):
            top, left = tiles[n, 0] * TILE, tiles[n, 1] * TILE
            position = _tile(queries, wanted, top, left, query)
            blocks = _window(source, wanted.shape, bias.shape[0], top, left, outside, rows, places, held)
            peak = np.full(LANES, -np.inf, np.float32)
            for block in range(blocks):
                if l2:
                    score_block_l2(query, keys, rows, bias, places, block, scores, highest, peak)
                else:
                    score_block_dot(query, keys, rows, bias, places, block, scores, highest, peak)
            _vote(scores, highest, blocks, held, labels, source, own, seen, peak, position, top_k, solved)


@numba.njit(cache=True, nogil=True)
def _tile(queries, wanted, top, left, query):
    """Where the lanes of a tile stand, int64 [LANES], -1 where none is wanted; fills query [C, LANES]."""
    position = np.full(LANES, -1, np.int64)
    height, width = wanted.shape
    for lane in range(LANES):
        y, x = top + lane // TILE, left + lane % TILE
        if y < height and x < width and wanted[y, x]:
            position[lane] = y * width + x
            query[:, lane] = queries[position[lane]]
    return position


@numba.njit(cache=True, nogil=True)
def _window(source, size, places_of_bias, top, left, outside, rows, places, held):
    """List a tile's keys (their row, place in the window, and row of labels); returns how many blocks they fill.

    Keys from outside the frame stand in row ``outside`` and have no labels (-1); -1 leaves them out.
    """
    height, width = size
    side = int(np.sqrt(places_of_bias - 1))
    radius = (side - TILE) // 2
    count = 0
    for m in range(source.shape[0]):
        for place in range(side * side):
            y, x = top - radius + place // side, left - radius + place % side
            row, holder = outside, -1
            if 0 <= y < height and 0 <= x < width and source[m, y * width + x] >= 0:
                row, holder = source[m, y * width + x], m * height * width + y * width + x
            if row >= 0:
                rows[count], places[count], held[count] = row, place, holder
                count += 1
    blocks = (count + KEYS - 1) // KEYS
    rows[count : blocks * KEYS], places[count : blocks * KEYS] = 0, places_of_bias - 1
    return blocks


@numba.njit(cache=True, nogil=True)
def _vote(scores, highest, blocks, held, labels, source, own, seen, peak, position, top_k, solved):
    """Softmax over the ``top_k`` highest scores of each lane, by label; ``scores`` and ``held`` are shuffled.

    Where k blocks reach a bound, k scores do; so the few candidates above such a bound hold the k highest.
    """
    bound, counts = np.empty(LANES, np.float32), np.empty(LANES, np.int32)
    missing = position < 0
    _reached(highest, blocks, top_k, peak, missing, bound, counts, 8)
    few = 0
    for block in range(blocks):
        if lanes_at_least(highest, block, bound):
            for i in range(block * KEYS, block * KEYS + KEYS):
                if lanes_at_least(scores, i, bound):
                    scores[few], held[few] = scores[i], held[i]
                    few += 1
    above = _reached(scores, few, top_k, peak, missing, bound, counts, 64)
    # Of those between the two, which are equal, the first come in until there are k
    count_at_least(scores, few, above, counts)
    places = labels.shape[1]
    votes, total = np.zeros((LANES, *solved.shape[1:]), np.float32), np.zeros((LANES, places), np.float32)
    for i in range(few):
        lanes = lanes_at_least(scores, i, bound)
        while lanes:
            lane = lowest_bit(lanes)
            lanes &= lanes - 1
            if scores[i, lane] < above[lane]:
                if counts[lane] >= top_k:
                    continue
                counts[lane] += 1
            share = np.exp(scores[i, lane] - peak[lane])
            at = source.flat[held[i]] if held[i] >= 0 else -1
            for place in range(places):
                worth = share * _colour_factor(own, seen, position[lane], at, place)
                total[lane, place] += worth
                if held[i] >= 0:
                    votes[lane, labels[held[i], place], place] += worth
    for lane in range(LANES):
        if total[lane, 0] > 0:
            solved[position[lane]] = votes[lane] / total[lane]


@numba.njit(cache=True, nogil=True)
def _colour_factor(own, seen, position, at, place):
    """What a vote for a place is worth, by its colour; what is outside (-1) has none, that is zeros."""
    difference = np.float32(0)
    for d in range(own.shape[2]):
        other = seen[at, place, d] if at >= 0 else np.float32(0)
        difference += (own[position, place, d] - other) ** 2
    return np.exp(-min(difference, np.float32(OTHER_COLOUR)))


_LOWEST = np.finfo(np.float32).min


@numba.njit(cache=True, nogil=True)
def _reached(values, count, top_k, peak, missing, bound, counts, steps):
    """The k-th highest value of each lane, between two bounds that get closer with every step.

    Args:
        values: float32 [>= count, LANES]; peak: float32 [LANES], their maximum.
        missing: bool [LANES], lanes that do not matter: their bound is infinite.
        bound: float32 [LANES], is written: k values reach it, or all finite ones if they are fewer.
        counts: int32 [LANES], scratch.

    Returns:
        float32 [LANES], at least the bound: at most k values reach it.
    """
    _search_downwards(values, count, top_k, peak, missing, bound, counts)
    above, middle = np.nextafter(peak, np.float32(np.inf)), np.empty(LANES, np.float32)
    for _ in range(steps):
        for lane in range(LANES):
            middle[lane] = np.float32(0.5) * bound[lane] + np.float32(0.5) * above[lane]
        count_at_least(values, count, middle, counts)
        unsettled = False
        for lane in range(LANES):
            if counts[lane] == top_k:
                bound[lane] = above[lane] = middle[lane]
            elif bound[lane] < middle[lane] < above[lane]:
                unsettled = True
                if counts[lane] > top_k:
                    bound[lane] = middle[lane]
                else:
                    above[lane] = middle[lane]
        if not unsettled:
            break
    return above


@numba.njit(cache=True, nogil=True)
def _search_downwards(values, count, top_k, peak, missing, bound, counts):
    """Bounds that k values reach, in growing steps from the peak; or all finite ones, if they are fewer."""
    bound[:] = _LOWEST
    count_at_least(values, count, bound, counts)
    for lane in range(LANES):
        if missing[lane]:
            bound[lane] = np.inf
        elif counts[lane] >= top_k:
            bound[lane] = peak[lane]
    step, short = np.float32(1), True
    while short:
        count_at_least(values, count, bound, counts)
        short = False
        for lane in range(LANES):
            if counts[lane] < top_k and _LOWEST < bound[lane] < np.inf:
                bound[lane] = max(peak[lane] - step, _LOWEST)
                short = True
        step *= 4
