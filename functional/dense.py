"""The reference backend: every displaced copy of the memory, spelled out. Obvious, slow, and large:
(2R+1)^2 times the features in memory. The other backends are tested against it."""

import torch
import torch.nn.functional as F

from functional.scores import as_dot_product, colour_factor, pad, warped


def _unfold(padded: torch.Tensor, radius: int) -> torch.Tensor:
    """[B, C, H+2R, W+2R] -> [B, C, (2R+1)^2, H, W]: the neighbourhood of every position."""
    batch, channels, height, width = padded.shape
    side = 2 * radius + 1
    columns = F.unfold(padded, side)
    return columns.view(batch, channels, side * side, height - 2 * radius, width - 2 * radius)


def correlate(query: torch.Tensor, padded: torch.Tensor, radius: int) -> torch.Tensor:
    """See :func:`functional.local_correlation`; ``padded`` is the memory with R positions around it."""
    return torch.einsum("bchw,bcnhw->bnhw", query, _unfold(padded, radius))


def _scores(query: torch.Tensor, padded: torch.Tensor, radius: int, locality: float) -> torch.Tensor:
    """[B, M * (2R+1)^2, H, W]."""
    frames = padded.shape[1]
    scores = torch.cat([correlate(query, padded[:, m], radius) for m in range(frames)], dim=1)
    offset = torch.arange(-radius, radius + 1, device=scores.device).square()
    distance = (offset[:, None] + offset).flatten().repeat(frames)
    return scores - locality * distance[:, None, None]


def attend(query, padded, values, radius, top_k, locality):
    """See :func:`functional.propagate`; memory and values come with R positions around them."""
    scores = _scores(query, padded, radius, locality)
    candidates = torch.cat([_unfold(frame, radius) for frame in values.unbind(1)], dim=2)
    if top_k is not None:
        scores, index = scores.topk(top_k, dim=1)
        candidates = candidates.gather(2, index[:, None].expand(-1, values.shape[2], -1, -1, -1))
    return torch.einsum("bnhw,bknhw->bkhw", scores.softmax(1).to(values.dtype), candidates)


def attend_labels(query, memory, labels, source, num_labels, wanted, colours, matching):
    """See :func:`functional.tiled.attend_labels`; computes what is not wanted, too."""
    radius, top_k, border, metric, temperature, locality = matching
    unlabelled = labels[:, :1] < 0
    memory = warped(memory, source, unlabelled)
    left_out = unlabelled[None] if border == "exclude" else None
    query, memory = as_dot_product(query[None], memory[None], radius, border, metric, temperature, left_out)
    scores, index = _scores(query, memory, radius, locality)[0].topk(top_k, dim=0)

    def chosen(x, fill=0):
        """Of [M, D, H, W] what the chosen candidates hold, [D, k, H, W]."""
        candidates = _unfold(pad(x, radius, fill), radius).transpose(0, 1).flatten(1, 2)
        return candidates.gather(1, index[None].expand(len(candidates), -1, -1, -1))

    answers = []
    for place in range(labels.shape[1]):
        held = chosen(labels[:, place, None].float(), -1)[0].long()
        seen = chosen(warped(colours[1][:, place], source, unlabelled))
        weights = scores.softmax(0) * colour_factor((seen - colours[0][place][:, None]).movedim(0, -1))
        votes = F.one_hot(held + 1, num_labels + 1)[..., 1:].to(weights.dtype)
        answers.append((weights[..., None] * votes).sum(0) / weights.sum(0)[..., None])
    return torch.stack(answers).permute(3, 0, 1, 2)
