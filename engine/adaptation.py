"""Adaptation to one video, without labels: some steps of the self-supervised loss on its own frames."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from datasets.unlabeled import EpochSampler, FrameTuples
from engine.objective import colour_loss, reconstruct
from models import MAMP

log = logging.getLogger(__name__)

MOST_FRAMES = 200  # of a long video, evenly spread: 70 MB of small frames
SHORT_SIDE = 256


def adapt(model: MAMP, frames: Iterable[np.ndarray], steps: int, *, lr: float = 1e-4, batch: int = 8,
          quiet: bool = False) -> MAMP:  # fmt: skip
    """A copy of the model, trained on for some steps on the frames of one video.

    The running statistics of its normalisation stay as they are: one video is too little to estimate them.

    Args:
        model: is not changed.
        frames: uint8 RGB [H, W, 3]; iterated once.
        steps: how many updates; lr: their learning rate; batch: samples a step.

    Returns:
        The copy, in eval mode; the model itself if there is nothing to train: no parameters, or one frame.
    """
    clip = _small_frames(frames)
    if len(clip) < 2 or not any(p.requires_grad for p in model.parameters()):
        log.info("nothing to adapt: the video has %d frame(s) and the encoder may have no parameters", len(clip))
        return model
    data = FrameTuples([clip], ref_num=1, size=128, intervals=[1, 2, 4, 8], probabilities=[1, 1, 1, 1],
                       augmentation="crop", seed=0)  # fmt: skip
    adapted = copy.deepcopy(model).eval()
    device = next(adapted.parameters()).device
    optimizer = torch.optim.Adam(adapted.parameters(), lr=lr)
    chance = torch.Generator().manual_seed(0)
    for sample in tqdm(_samples(data, steps, batch), total=steps, desc="adapting", unit="step", disable=quiet):
        channel = int(torch.randint(1, 3, (), generator=chance))
        sample = sample.to(device)
        loss = colour_loss(reconstruct(adapted, sample, channel)[0], sample, channel)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return adapted


def _small_frames(frames: Iterable[np.ndarray]) -> list[np.ndarray]:
    """At most :data:`MOST_FRAMES` of the frames, at a fixed step, with a short side of 256 pixels or less."""
    kept, step = [], 1
    for t, frame in enumerate(frames):
        if t % step:
            continue
        scale = min(1.0, SHORT_SIDE / min(frame.shape[:2]))
        kept.append(cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        if len(kept) == MOST_FRAMES:
            kept, step = kept[::2], 2 * step
    return kept


def _samples(data: FrameTuples, steps: int, batch: int):
    """Batches [batch, 2, 3, 128, 128], as many as there are steps."""
    batch = min(batch, len(data))
    sampler = EpochSampler(len(data), seed=0, batch=batch)
    loader = DataLoader(data, batch, sampler=sampler)
    done = epoch = 0
    while done < steps:
        sampler.seek(epoch)
        for sample in loader:
            if done == steps:
                return
            yield sample
            done += 1
        epoch += 1
