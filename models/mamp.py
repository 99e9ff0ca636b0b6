"""The model: an encoder, and the self-supervised task that trains it."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn as nn

from functional import propagate
from models.encoder import ENCODERS
from utils import checkpoint
from utils.errors import UserError

# The key style of the paper's released checkpoint -> ours
_PAPER_KEYS = [
    (r"^feature_extraction\.conv1\.", "encoder.stem."),
    (r"^feature_extraction\.(layer\d)\.(\d)\.left\.", r"encoder.\1.\2.body."),
    (r"^feature_extraction\.", "encoder."),
    (r"^post_convolution\.", "encoder.projection."),
]


class MAMP(nn.Module):
    """Motion-Aware Mask Propagation's network (arXiv 2107.12569, Section 3.1).

    Args:
        arch: a name in :data:`models.encoder.ENCODERS`: "resnet18" (alias "MAMP"), "light" or "lab".
        train_radius: R of the reconstruction in training, in positions of stride 4.
    """

    def __init__(self, arch: str = "resnet18", train_radius: int = 6):
        super().__init__()
        if arch not in ENCODERS:
            raise UserError(f"unknown architecture {arch!r}; there are {', '.join(ENCODERS)}")
        self.encoder = ENCODERS[arch]()
        self.arch = next(name for name, encoder in ENCODERS.items() if encoder is type(self.encoder))
        self.train_radius = train_radius

    @property
    def metric(self) -> str:
        """How features are compared: "dot" or "l2"."""
        return self.encoder.metric

    @property
    def temperature(self) -> float | None:
        """What divides their scores; None is sqrt(C)."""
        return self.encoder.temperature

    def encode(self, lab: torch.Tensor) -> torch.Tensor:
        """Features of frames.

        Args:
            lab: float [B, 3, H, W], CIE Lab as :func:`datasets.transforms.to_lab` makes it; H and W are
                multiples of 4.

        Returns:
            [B, C, H/4, W/4].
        """
        return self.encoder(lab)

    def forward(
        self, query: torch.Tensor, memory: torch.Tensor, colour: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Reconstruct the query's missing colour channel from the memory frames' (Section 3.1).

        Args:
            query: [B, 3, H, W] Lab with one channel missing; memory: [B, M, 3, H, W], the same.
            colour: [B, M, 1, H/4, W/4], the missing channel of the memory frames.

        Returns:
            The reconstruction [B, 1, H/4, W/4], and the features that it was made with: the query's
            [B, C, H/4, W/4] and the memory's [B, M, C, H/4, W/4].
        """
        batch, frames = memory.shape[:2]
        # Scores in float32: their softmax is what half precision would lose most in
        features = self.encode(torch.cat((query, memory.flatten(0, 1)))).float()
        queries, keys = features[:batch], features[batch:].view(batch, frames, *features.shape[1:])
        reconstruction = propagate(
            queries,
            keys,
            colour.float(),
            radius=self.train_radius,
            metric=self.metric,
            temperature=self.temperature,
        )
        return reconstruction, queries, keys

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device | None = None) -> MAMP:
        """The model a checkpoint holds, in eval mode.

        Args:
            path: .safetensors, .pt or .pth, in our key style or the paper's, bare or a training checkpoint.
            device: where to put it; None means CUDA if there is one, else the CPU.

        Raises:
            UserError: unreadable file, or weights that do not fit; the message names the keys.
        """
        weights, about = checkpoint.load(path)
        weights = {_our_key(name): value for name, value in weights.items()}
        model = cls(about.get("arch") or _guess_arch(weights))
        model.load_weights(weights, path)
        return model.eval().to(device or ("cuda" if torch.cuda.is_available() else "cpu"))

    def load_weights(self, weights: dict[str, torch.Tensor], path: str | Path) -> None:
        """Load weights in our key style; ``path`` is for the error message.

        Raises:
            UserError: keys are missing or left over, or shapes differ.
        """
        own = {k: v for k, v in self.state_dict().items() if not k.endswith("num_batches_tracked")}
        weights = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
        differences = {
            "missing": sorted(own.keys() - weights.keys()),
            "unknown": sorted(weights.keys() - own.keys()),
            "of another shape": sorted(k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape),
        }
        said = [f"{what}: {_some(keys)}" for what, keys in differences.items() if keys]
        if said:
            raise UserError(f"{path}: the weights do not fit --arch {self.arch}; keys {'; '.join(said)}")
        self.load_state_dict(weights, strict=False)


def _our_key(name: str) -> str:
    name = name.removeprefix("module.")
    for pattern, ours in _PAPER_KEYS:
        name = re.sub(pattern, ours, name)
    return name


def _guess_arch(weights: dict) -> str:
    return "light" if any(name.startswith("encoder.lateral") for name in weights) else "resnet18"


def _some(keys: list[str], most: int = 4) -> str:
    rest = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + rest
