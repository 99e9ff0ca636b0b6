"""The default backend: tiles of query positions against the window of memory that they share.

The scores of a T x T tile are one matrix product with the (T+2R)^2 positions of its window; those beyond
the radius of a query position are masked. Nothing is unfolded to (2R+1)^2 copies, rows of tiles are worked
off one after another, and plain PyTorch differentiates it.
"""

import functools

import torch
import torch.nn.functional as F

from functional.scores import as_dot_product, colour_factor, pad, warped

TILE = 8
GROUP = 16  # candidates that share one partial maximum in the selection of the top k
SCORES_AT_ONCE = 4_000_000  # bounds the working memory: about five times as many bytes are alive


@functools.lru_cache(maxsize=8)
def _band(radius: int, locality: float, device: torch.device) -> torch.Tensor:
    """float [T*T, (T+2R)^2], what a window position adds to the score: -inf beyond the query's radius."""
    reach = torch.arange(TILE + 2 * radius, device=device)
    offset = reach - radius - torch.arange(TILE, device=device)[:, None]
    far = offset.abs() > radius
    distance = offset.square()[:, None, :, None] + offset.square()[None, :, None, :]
    bias = (-locality * distance).masked_fill(far[:, None, :, None] | far[None, :, None, :], -torch.inf)
    return bias.reshape(TILE * TILE, -1)


def _fill_tiles(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Pad [..., h, w] at the right and bottom so that the query has whole tiles."""
    return F.pad(x, (0, -width % TILE, 0, -height % TILE))


def _query_tiles(query: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W] -> [B, rows, columns, T*T, C]."""
    batch, channels, height, width = query.shape
    query = _fill_tiles(query, height, width)
    tiles = query.unfold(2, TILE, TILE).unfold(3, TILE, TILE)
    return tiles.permute(0, 2, 3, 4, 5, 1).reshape(batch, *tiles.shape[2:4], TILE * TILE, channels)


def _channels_last(padded: torch.Tensor, radius: int) -> torch.Tensor:
    """[B, M, C, H+2R, W+2R] -> [B, M, h, w, C], filled up to whole tiles."""
    height, width = padded.shape[-2] - 2 * radius, padded.shape[-1] - 2 * radius
    return _fill_tiles(padded, height, width).permute(0, 1, 3, 4, 2).contiguous()


def _windows(channels_last: torch.Tensor, radius: int) -> torch.Tensor:
    """[B, M, h, w, C] -> a view [B, rows, columns, M, T+2R, T+2R, C]: the window of each tile."""
    side = TILE + 2 * radius
    return channels_last.unfold(2, side, TILE).unfold(3, side, TILE).permute(0, 2, 3, 1, 5, 6, 4)


def _window_row(channels_last: torch.Tensor, radius: int, row: int) -> torch.Tensor:
    """[B, M, h, w, C] -> [B, columns, M, T+2R, T+2R, C]: the windows of one row of tiles.

    Cut out before it is unfolded, so that the gradient of a row is as small as the memory frames.
    """
    top = row * TILE
    return _windows(channels_last[:, :, top : top + TILE + 2 * radius], radius)[:, 0]


def _untile(tiles: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[B, rows, columns, T*T, K] -> [B, K, H, W]."""
    batch, rows, columns, _, channels = tiles.shape
    grid = tiles.view(batch, rows, columns, TILE, TILE, channels).permute(0, 5, 1, 3, 2, 4)
    return grid.reshape(batch, channels, rows * TILE, columns * TILE)[..., :height, :width]


def correlate(query: torch.Tensor, padded: torch.Tensor, radius: int) -> torch.Tensor:
    """See :func:`functional.local_correlation`; ``padded`` is the memory with R positions around it."""
    tiles = _query_tiles(query)
    memory = _channels_last(padded[:, None], radius)
    side, reach = 2 * radius + 1, TILE + 2 * radius
    # position (y, x) of a tile sees window positions (y..y+2R, x..x+2R)
    start = torch.arange(TILE, device=query.device)
    span = torch.arange(side, device=query.device)
    near = start[:, None] + span
    index = (near[:, None, :, None] * reach + near[None, :, None, :]).reshape(TILE * TILE, side * side)
    rows = []
    for row in range(tiles.shape[1]):
        keys = _window_row(memory, radius, row).flatten(2, 4)
        scores = tiles[:, row] @ keys.transpose(-1, -2)
        rows.append(scores.gather(-1, index.expand(*scores.shape[:2], -1, -1)))
    return _untile(torch.stack(rows, 1), *query.shape[-2:])


def attend(query, padded, values, radius, top_k, locality):
    """See :func:`functional.propagate`; memory and values come with R positions around them."""
    tiles, memory, values = _query_tiles(query), _channels_last(padded, radius), _channels_last(values, radius)
    rows = []
    for row in range(tiles.shape[1]):
        scores = _scores(tiles[:, row], _window_row(memory, radius, row), locality)
        candidates = _window_row(values, radius, row).flatten(2, 4)
        if top_k is None:
            rows.append(scores.softmax(-1).to(values.dtype) @ candidates)
        else:
            weights, index = _top(scores, top_k)
            chosen = candidates[
                torch.arange(len(index), device=index.device)[:, None, None, None],
                torch.arange(index.shape[1], device=index.device)[:, None, None],
                index,
            ]
            rows.append(torch.einsum("bxpk,bxpkv->bxpv", weights.softmax(-1).to(values.dtype), chosen))
    return _untile(torch.stack(rows, 1), *query.shape[-2:])


def _scores(tiles: torch.Tensor, windows: torch.Tensor, locality: float) -> torch.Tensor:
    """Tiles [..., T*T, C] with windows [..., M, S, S, C] -> scores [..., T*T, M*S*S], -inf beyond the radius."""
    frames, side = windows.shape[-4], windows.shape[-2]
    keys = windows.flatten(-4, -2)
    band = _band((side - TILE) // 2, locality, tiles.device).to(tiles.dtype)
    return (tiles @ keys.transpose(-1, -2)).add_(band.repeat(1, frames))


def _top(scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``top_k`` highest of the last dimension and their indices, unsorted.

    The k highest candidates lie in the k groups with the highest maxima, so two small selections do what
    one over all candidates would.
    """
    count = scores.shape[-1]
    if count % GROUP or count // GROUP <= 2 * top_k:
        return scores.topk(top_k, sorted=False)
    grouped = scores.unflatten(-1, (count // GROUP, GROUP))
    groups = grouped.amax(-1).topk(top_k, sorted=False).indices
    rest = grouped.gather(-2, groups[..., None].expand(*groups.shape, GROUP)).flatten(-2)
    values, within = rest.topk(top_k, sorted=False)
    index = groups.gather(-1, within // GROUP) * GROUP + within % GROUP
    return values, index


def attend_labels(query, memory, labels, source, num_labels, wanted, colours, matching):
    """:func:`functional.propagate_labels` where it is ``wanted``, tile by tile.

    Args:
        query: [C, H, W]; memory: [M, C, H, W], not warped; labels: int16 [M, F, H, W], F labels a position,
            warped, -1 for none.
        source: int64 [M, H*W], the position in memory that the warp takes, or None.
        wanted: bool [H, W].
        colours: of each label, [F, D, H, W] of the query and [M, F, D, H, W] of the memory, not warped.
        matching: :class:`functional.scores.Matching`.

    Returns:
        float [K, F, H, W], 0 in tiles without a wanted position.
    """
    radius, top_k, border, metric, temperature, locality = matching
    height, width = query.shape[-2:]
    unlabelled = labels[:, :1] < 0
    memory = warped(memory, source, unlabelled)
    left_out = unlabelled[None] if border == "exclude" else None
    query, memory = as_dot_product(query[None], memory[None], radius, border, metric, temperature, left_out)
    seen = pad(warped(colours[1].flatten(1, 2), source, unlabelled)[None], radius)

    tiles, own = _query_tiles(query)[0], _query_tiles(colours[0].flatten(0, 1)[None])[0]
    keys = _windows(_channels_last(memory, radius), radius)[0]
    held = _windows(_channels_last(pad(labels[None], radius, value=-1), radius), radius)[0]
    seen = _windows(_channels_last(seen, radius), radius)[0]
    unsure = _fill_tiles(wanted, height, width).unflatten(1, (-1, TILE)).unflatten(0, (-1, TILE))
    row, column = unsure.any(3).any(1).nonzero(as_tuple=True)
    places = held.shape[-1]
    solved = tiles.new_zeros(*tiles.shape[:3], places, num_labels)
    step = max(1, SCORES_AT_ONCE // (TILE * TILE * keys[0, 0, ..., 0].numel()))
    for some in torch.arange(len(row), device=row.device).split(step):
        at = row[some], column[some]
        scores, index = _top(_scores(tiles[at], keys[at], locality), top_k)
        found = _chosen(held[at], index).transpose(2, 3)  # [tiles, T*T, F, k]
        difference = (_chosen(seen[at], index) - own[at][:, :, None]).unflatten(-1, (places, -1))
        weights = scores.softmax(-1)[:, :, None] * colour_factor(difference).transpose(2, 3)
        shares = tiles.new_zeros(*found.shape[:3], num_labels + 1)
        shares.scatter_add_(-1, found.long() + 1, weights / weights.sum(-1, keepdim=True))
        solved[at] = shares[..., 1:]
    solved = _untile(solved.transpose(-1, -2).flatten(-2)[None], height, width)[0]
    return solved.unflatten(0, (num_labels, places))


def _chosen(windows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Of windows [tiles, M, S, S, C] the candidates [tiles, T*T, k]: [tiles, T*T, k, C]."""
    candidates = windows.flatten(1, 3)
    chosen = candidates.gather(1, index.flatten(1)[..., None].expand(-1, -1, windows.shape[-1]))
    return chosen.view(*index.shape, -1)
