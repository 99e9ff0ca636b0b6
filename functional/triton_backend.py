"""The backend for CUDA, in Triton, which comes with PyTorch: nothing is built when the project is installed.

For label maps, one program a query position holds the scores of all its candidates in registers, finds the k-th
highest by bisection and adds up the votes; no score ever reaches memory. For training, local correlation
and its two gradients are one kernel each, without unfolding. Set TRITON_INTERPRET=1 to run it on a CPU, for tests.
"""

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from functional import tiled
from functional.scores import OTHER_COLOUR

COLUMNS = 32  # positions of a row that one program correlates


def usable(device: torch.device) -> bool:
    """Whether kernels can run on a device: on CUDA, or anywhere in the interpreter."""
    return device.type == "cuda" or triton.knobs.runtime.interpret


# --- label maps: scores and selection in one kernel ---


@triton.jit
def _vote(
    query, keys, source, labels, own, seen, positions, shares,
    height, width, radius, channels, num_labels, places, hues, top_k, locality,
    EXCLUDE: tl.constexpr, L2: tl.constexpr, OTHER: tl.constexpr, CANDIDATES: tl.constexpr,
):  # fmt: skip
    """One query position: query [C, HW], keys [M, C, HW], source [M, HW], labels [M, F, HW], shares [N, K, F],
    and the colours own [F, D, HW] and seen [M, F, D, HW]."""
    size = height * width
    side = 2 * radius + 1
    position = tl.load(positions + tl.program_id(0))
    candidate = tl.arange(0, CANDIDATES)
    frame = candidate // (side * side)
    dy = candidate // side % side - radius
    dx = candidate % side - radius
    y, x = position // width + dy, position % width + dx
    exists = candidate < top_k[0]
    inside = exists & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    at = frame * size + y * width + x
    row = tl.load(source + at, mask=inside, other=-1)
    inside = inside & (row >= 0)
    key = frame.to(tl.int64) * channels * size + row
    score = tl.zeros([CANDIDATES], tl.float32)
    for channel in range(channels):
        q = tl.load(query + channel * size + position).to(tl.float32)
        k = tl.load(keys + key + channel * size, mask=inside, other=0.0).to(tl.float32)
        score += -(q - k) * (q - k) if L2 else q * k
    score -= locality * (dy * dy + dx * dx).to(tl.float32)
    counts = inside if EXCLUDE else exists
    score = tl.where(counts, score, -float("inf"))
    # The k-th highest: floats in the order of their bits, then bisection over all integers
    bits = score.to(tl.int32, bitcast=True)
    order = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    low, high = tl.full([], -2147483648, tl.int64), tl.full([], 2147483647, tl.int64)
    for _ in range(32):
        middle = (low + high + 1) >> 1
        enough = tl.sum((order >= middle).to(tl.int32), 0) >= top_k[1]
        low = tl.where(enough, middle, low)
        high = tl.where(enough, high, middle - 1)
    above = order > low
    equal = (order == low) & counts
    place = tl.cumsum(equal.to(tl.int32), 0)  # of equal candidates the first ones enter
    chosen = (above | (equal & (place <= top_k[1] - tl.sum(above.to(tl.int32), 0)))) & counts
    weight = tl.where(chosen, tl.exp(score - tl.max(score, 0)), 0.0)
    to = shares + tl.program_id(0) * num_labels * places
    for place in range(places):
        at = (frame * places + place) * size + y * width + x
        label = tl.load(labels + at, mask=inside, other=-1).to(tl.int32)
        difference = tl.zeros([CANDIDATES], tl.float32)
        for hue in range(hues):
            mine = tl.load(own + (place * hues + hue) * size + position)
            at = ((frame * places + place) * hues + hue) * size + row
            other = mine - tl.load(seen + at, mask=inside, other=0.0)
            difference += other * other
        worth = weight * tl.exp(-tl.minimum(difference, OTHER))
        worth = worth / tl.sum(worth, 0)
        for k in range(num_labels):
            tl.store(to + k * places + place, tl.sum(tl.where(label == k, worth, 0.0), 0))


def attend_labels(query, memory, labels, source, num_labels, wanted, colours, matching):
    """See :func:`functional.tiled.attend_labels`."""
    radius, top_k, border, metric, temperature, locality = matching
    _check_device(query)
    channels, height, width = query.shape
    frames, places, size = *labels.shape[:2], height * width
    divisor = temperature if metric == "dot" else temperature**0.5
    scaled = (query.flatten(1).float() / divisor).contiguous()
    keys = memory.flatten(2).contiguous()
    if metric == "l2":
        keys = keys.float() / divisor
    if source is None:
        source = torch.arange(size, device=query.device).expand(frames, -1)
    source = torch.where(labels[:, 0].flatten(1) >= 0, source, -1).int().contiguous()
    own, seen = (c.float().contiguous() for c in colours)
    positions = wanted.flatten().nonzero()[:, 0].int()
    shares = torch.empty(len(positions), num_labels, places, device=query.device)
    count = frames * (2 * radius + 1) ** 2
    _vote[(len(positions),)](
        scaled, keys, source, labels.contiguous(), own, seen, positions, shares,
        height, width, radius, channels, num_labels, places, own.shape[1], (count, top_k), locality,
        EXCLUDE=border == "exclude", L2=metric == "l2", OTHER=OTHER_COLOUR,
        CANDIDATES=triton.next_power_of_2(count), num_warps=8,
    )  # fmt: skip
    out = query.new_zeros(num_labels, places, size)
    out[..., positions.long()] = shares.permute(1, 2, 0).nan_to_num().to(query.dtype)  # NaN: not one candidate counts
    return out.unflatten(2, (height, width))


# --- training: local correlation and its gradients ---


@triton.jit
def _correlate(query, memory, out, height, width, radius, channels, C: tl.constexpr, X: tl.constexpr):
    """A stretch of a row: out [B, D, H, W] from query [B, C, H, W] and memory [B, C, H+2R, W+2R]."""
    y, batch, side = tl.program_id(1), tl.program_id(2), 2 * radius + 1
    x, c = tl.program_id(0) * X + tl.arange(0, X), tl.arange(0, C)
    in_frame, wide = x < width, width + 2 * radius
    both = (c < channels)[:, None] & in_frame[None, :]
    at = ((batch * channels + c).to(tl.int64) * height + y)[:, None] * width + x[None, :]
    q = tl.load(query + at, mask=both, other=0.0).to(tl.float32)
    for d in range(side * side):
        there = ((batch * channels + c).to(tl.int64) * (height + 2 * radius) + y + d // side)[:, None] * wide
        k = tl.load(memory + there + (x + d % side)[None, :], mask=both, other=0.0).to(tl.float32)
        to = ((batch * side * side + d).to(tl.int64) * height + y) * width + x
        tl.store(out + to, tl.sum(q * k, 0), mask=in_frame)


@triton.jit
def _gradient_of_query(grad, memory, out, height, width, radius, channels, C: tl.constexpr, X: tl.constexpr):
    """out [B, C, H, W]: what each query position gets from the memory positions around it."""
    y, batch, side = tl.program_id(1), tl.program_id(2), 2 * radius + 1
    x, c = tl.program_id(0) * X + tl.arange(0, X), tl.arange(0, C)
    in_frame, wide = x < width, width + 2 * radius
    both = (c < channels)[:, None] & in_frame[None, :]
    total = tl.zeros([C, X], tl.float32)
    for d in range(side * side):
        there = ((batch * channels + c).to(tl.int64) * (height + 2 * radius) + y + d // side)[:, None] * wide
        k = tl.load(memory + there + (x + d % side)[None, :], mask=both, other=0.0).to(tl.float32)
        at = ((batch * side * side + d).to(tl.int64) * height + y) * width + x
        total += tl.load(grad + at, mask=in_frame, other=0.0).to(tl.float32)[None, :] * k
    to = ((batch * channels + c).to(tl.int64) * height + y)[:, None] * width + x[None, :]
    tl.store(out + to, total, mask=both)


@triton.jit
def _gradient_of_memory(grad, query, out, height, width, radius, channels, C: tl.constexpr, X: tl.constexpr):
    """out [B, C, H+2R, W+2R]: what each memory position gets from the query positions that saw it."""
    v, batch, side = tl.program_id(1), tl.program_id(2), 2 * radius + 1
    u, c = tl.program_id(0) * X + tl.arange(0, X), tl.arange(0, C)
    wide = width + 2 * radius
    total = tl.zeros([C, X], tl.float32)
    for d in range(side * side):
        x = u - d % side
        y = v - d // side + x * 0  # a row for each column: masks are made of vectors alone
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        at = ((batch * channels + c).to(tl.int64) * height)[:, None] * width + (y * width + x)[None, :]
        q = tl.load(query + at, mask=(c < channels)[:, None] & seen[None, :], other=0.0).to(tl.float32)
        g = tl.load(grad + ((batch * side * side + d).to(tl.int64) * height + y) * width + x, mask=seen, other=0.0)
        total += g.to(tl.float32)[None, :] * q
    to = ((batch * channels + c).to(tl.int64) * (height + 2 * radius) + v)[:, None] * wide + u[None, :]
    tl.store(out + to, total, mask=(c < channels)[:, None] & (u < wide)[None, :])


class _Correlation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query, padded, radius):
        query, padded = query.contiguous(), padded.contiguous()
        ctx.save_for_backward(query, padded)
        ctx.radius = radius
        batch, channels, height, width = query.shape
        out = query.new_empty(batch, (2 * radius + 1) ** 2, height, width)
        _launch(_correlate, (query, padded, out), height, width, height, width, radius, channels)
        return out

    @staticmethod
    def backward(ctx, grad):
        query, padded = ctx.saved_tensors
        grad, (channels, height, width) = grad.contiguous(), query.shape[1:]
        tall, wide = padded.shape[-2:]
        of_query, of_memory = torch.empty_like(query), torch.empty_like(padded)
        shape = (height, width, ctx.radius, channels)
        _launch(_gradient_of_query, (grad, padded, of_query), height, width, *shape)
        _launch(_gradient_of_memory, (grad, query, of_memory), tall, wide, *shape)
        return of_query, of_memory, None


def _launch(kernel, tensors, rows, columns, height, width, radius, channels):
    """One program for each stretch of :data:`COLUMNS` of each of the ``rows`` of each sample."""
    grid = (triton.cdiv(columns, COLUMNS), rows, len(tensors[1]))
    kernel[grid](*tensors, height, width, radius, channels, C=triton.next_power_of_2(channels), X=COLUMNS)


def correlate(query: torch.Tensor, padded: torch.Tensor, radius: int) -> torch.Tensor:
    """See :func:`functional.local_correlation`; ``padded`` is the memory with R positions around it."""
    _check_device(query)
    if query.dtype == torch.float64:  # the kernels add up in float32
        return tiled.correlate(query, padded, radius)
    return _Correlation.apply(query, padded, radius)


def attend(query, padded, values, radius, top_k, locality):
    """See :func:`functional.propagate`; memory and values come with R positions around them."""
    if top_k is not None:
        return tiled.attend(query, padded, values, radius, top_k, locality)
    frames, side = padded.shape[1], 2 * radius + 1
    scores = torch.stack([correlate(query, padded[:, m], radius) for m in range(frames)], 1)
    offset = torch.arange(-radius, radius + 1, device=query.device)
    far = (offset[:, None].square() + offset.square()).reshape(1, 1, side * side, 1, 1)
    weights = (scores - locality * far).flatten(1, 2).softmax(1).view_as(scores).to(values.dtype)
    batch, _, kinds = values.shape[:3]
    candidates = F.unfold(values.flatten(0, 1), side).view(batch, frames, kinds, side * side, *query.shape[-2:])
    return torch.einsum("bmdhw,bmkdhw->bkhw", weights, candidates)


def _check_device(query: torch.Tensor) -> None:
    if not usable(query.device):
        raise ValueError(
            f"the triton backend runs on CUDA, not on {query.device}; set TRITON_INTERPRET=1 to try it there"
        )
