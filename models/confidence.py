"""How far an answer can be trusted: by object, from the votes and from whether the object is still to be recognised.

Neither alone is enough. The votes are sure even when the labels have drifted onto something else; what an object
looked like in its mask is found again even where its outline is wrong. Measured against the true J in the README.
"""

from __future__ import annotations

import torch

SAMPLES = 128  # positions of an object's mask that are looked for


class Looks:
    """What each object looked like where its mask was given, and whether a frame still shows that.

    Args:
        metric: "dot" or "l2", how features are compared.
    """

    def __init__(self, metric: str):
        self.metric = metric
        self._looks: dict[int, torch.Tensor] = {}  # [N, C] by index

    def learn(self, features: torch.Tensor, labels: torch.Tensor, indices: list[int]) -> None:
        """Take features [C, h, w] where int labels [h, w] are one of ``indices``, the background 0 left out."""
        for index in set(indices) - {0}:
            at = (labels == index).flatten().nonzero()[:, 0]
            if len(at):
                spread = torch.linspace(0, len(at) - 1, min(SAMPLES, len(at)), device=at.device).long()
                self._looks[index] = features.flatten(1)[:, at[spread]].T.contiguous()

    def recognized(self, features: torch.Tensor, labels: torch.Tensor) -> dict[int, float]:
        """The share of each object's looks whose nearest neighbour in the frame is labelled as the object."""
        if not self._looks:
            return {}
        keys = features.flatten(1)
        scores = torch.cat(list(self._looks.values())) @ keys
        if self.metric == "l2":
            scores = 2 * scores - keys.square().sum(0)
        found = labels.flatten()[scores.argmax(1)].split([len(looks) for looks in self._looks.values()])
        return {k: (part == k).float().mean().item() for k, part in zip(self._looks, found, strict=True)}


def expected_overlap(shares: torch.Tensor) -> torch.Tensor:
    """The J to expect of each label's winning positions, if its share of the votes is its probability.

    Args:
        shares: [K, h, w], summing to 1 over K.

    Returns:
        [K]; 0 for a label that wins nowhere.
    """
    wins = torch.zeros_like(shares).scatter_(0, shares.argmax(0, keepdim=True), 1)
    intersection = (shares * wins).flatten(1).sum(1)
    union = wins.flatten(1).sum(1) + (shares * (1 - wins)).flatten(1).sum(1)
    return intersection / union.clamp_min(1e-6)
