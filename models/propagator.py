"""Streaming inference (Section 3.2): one frame in, one label map out, in constant memory."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from datasets.transforms import LAB_SCALE, to_lab
from functional import (
    paint,
    propagate_labels,
    scattered_labels,
    subsample,
    upsample_argmax,
    without_specks,
)
from functional.labels import STRIDE
from models.carried_flow import CarriedFlow
from models.confidence import Looks, expected_overlap
from models.encoder import for_inference
from models.mamp import MAMP
from models.memory_bank import DavisMemory, MemoryBank, MemoryRule, Remembered
from models.optical_flow import FlowEstimator, flow_estimator
from utils.background import with_next
from utils.errors import UserError

_OURS = {
    "flow": "dis",
    "carry_flow": True,
    "border": "exclude",
    "locality": 0.02,
    "label_detail": 2,
    "colour": 0.5,
    "background": 0.85,
    "specks": 0.3,
}
PRESETS = {
    "paper": {
        "flow": "raft_large",
        "carry_flow": False,
        "border": "zero",
        "locality": 0.0,
        "label_detail": 1,
        "colour": 0.0,
        "background": 1.0,
        "specks": 0.0,
    },
    "default": _OURS,
    "fast": _OURS | {"scale": 0.5},
}
"""Settings for :class:`MaskPropagator`, whose own defaults are the paper's but for the flow, which needs no download.
Measured in benchmarks/settings.md."""

COLOUR_UNIT = 10.0  # in CIE Lab, where 2.3 is a difference just seen


class MaskPropagator:
    """Carries the labels of annotated frames through a video, frame by frame.

    >>> propagator = MaskPropagator(MAMP.from_checkpoint("ckpt/light.safetensors"), **PRESETS["default"])
    >>> first = propagator.step(frames[0], labels)
    >>> second = propagator.step(frames[1])

    Args:
        model: in eval mode, on the device to run on.
        flow: a name ("dis", "raft_large", "raft_small", "none") or a flow estimator (:mod:`models.optical_flow`);
            None is "none".
        carry_flow: also carry the flow on from frame to frame (:class:`models.carried_flow.CarriedFlow`); the paper
            does not.
        memory: which frames are remembered, a rule or the ``memory_length`` of :class:`DavisMemory`.
        radius: R, the half width of the search window in positions of stride 4.
        top_k: how many candidates vote; None means all.
        border: "zero" as the paper, or "exclude": whether what is outside the frame takes part.
        temperature: divides the scores; None means the encoder's own, in most cases sqrt(C).
        locality: how much candidates lose by their distance, see :func:`functional.propagate`; the paper's is 0.
        label_detail: 1, 2 or 4: a position of 4x4 pixels carries this times this labels, each of which votes for
            its own part of the answer; the paper's is 1.
        colour: a vote for a label is worth exp(-this * d^2) of what it is without, d the distance of the colours there
            in CIE Lab by :data:`COLOUR_UNIT`; the paper's is 0.
        background: the background's votes count this much. Majority voting shrinks what is thin or small; below
            1 it does less so. The paper's is 1.
        specks: pieces of an object that are far from the rest and smaller than this share of its largest one are
            dropped (:func:`functional.without_specks`), unless it was given with such pieces; the paper's is 0.
        scale: frames are worked on at this size; 0.5 takes every second pixel, as the paper does for
            YouTube-VOS. Masks keep the size of the frames.
        pad_divisible: working frames are zero-padded to a multiple of this (a multiple of 4).
        half: torch.float16 or torch.bfloat16 to compute the encoder in, None for float32.
        compiled: run the encoder through torch.compile, which on a CPU needs a C++ compiler.
        backend: of the matching, see :func:`functional.available_backends`.
    """

    def __init__(
        self,
        model: MAMP,
        *,
        flow: str | FlowEstimator | None = "dis",
        carry_flow: bool = False,
        memory: MemoryRule | int = 5,
        radius: int = 12,
        top_k: int | None = 36,
        border: str = "zero",
        temperature: float | None = None,
        locality: float = 0.0,
        label_detail: int = 1,
        colour: float = 0.0,
        background: float = 1.0,
        specks: float = 0.0,
        scale: float = 1.0,
        pad_divisible: int = 4,
        half: torch.dtype | None = None,
        compiled: bool = False,
        backend: str = "auto",
    ):
        if pad_divisible < STRIDE or pad_divisible % STRIDE:
            raise ValueError(f"pad_divisible must be a multiple of {STRIDE}, not {pad_divisible}")
        if label_detail not in (1, 2, 4):
            raise ValueError(f"label_detail must be 1, 2 or 4, not {label_detail}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be above 0 and at most 1, not {scale}")
        self.compiled = compiled
        self.use(model)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.flow = flow_estimator(flow, device=self.device) if isinstance(flow, str) else flow
        self.carry_flow = carry_flow
        self.scale, self.pad_divisible, self.half = scale, pad_divisible, half
        self.label_detail, self.colour, self.background, self.specks = label_detail, colour, background, specks
        self.matching = {
            "radius": radius,
            "top_k": top_k,
            "border": border,
            "metric": model.metric,
            "temperature": model.temperature if temperature is None else temperature,
            "locality": locality,
            "backend": backend,
        }
        self.bank = MemoryBank(DavisMemory(memory) if isinstance(memory, int) else memory)
        self._flow_thread = ThreadPoolExecutor(1)  # all flow is computed there, so estimators need no locks
        self.reset()

    def use(self, model: MAMP) -> None:
        """Take the encoder of another model of the same architecture, before a video's first frame."""
        self.model = model
        self._encoder = for_inference(model.encoder)
        if self.compiled:
            self._encoder = torch.compile(self._encoder)

    def reset(self) -> None:
        """Forget the video; the next :meth:`step` starts another."""
        self.bank.clear()
        self.time = 0
        self.shape: tuple[int, int] | None = None
        self.ids = [0]  # the label of each index that the memory holds
        self._upcoming: tuple[np.ndarray, Future] | None = None  # a frame, and its flow in the making
        self._carried = CarriedFlow(self.flow) if self.flow and self.carry_flow else None
        self._shares: torch.Tensor | None = None  # [K, h, w], the votes of the last step that had any
        self._answer: Remembered | None = None  # the last step
        self._scattered: set[int] = set()  # indices of objects that were given with specks
        self._given: list[int] = []  # what its labels say that were given, not predicted
        self._looks = Looks(self.model.metric)

    def another(self) -> MaskPropagator:
        """One with the same model and settings and an empty memory, for another pass over the video."""
        other = copy.copy(self)
        other.bank = MemoryBank(self.bank.rule)
        other.reset()
        return other

    @torch.inference_mode()
    def step(
        self, frame: np.ndarray, labels: np.ndarray | None = None, upcoming: np.ndarray | None = None
    ) -> np.ndarray:
        """Label the next frame.

        Args:
            frame: uint8 RGB [H, W, 3], all frames of a video of one size.
            labels: uint8 [H, W], object numbers 1..255, or None. On the first labelled frame they are the
                answer; later, the objects in them are added or corrected and the prediction of the others
                stays (:func:`functional.paint`), and the frame is remembered from then on.
            upcoming: the frame of the next step, if it is known: its optical flow is computed meanwhile.

        Returns:
            uint8 [H, W]; all 0 before the first labels.

        Raises:
            ValueError: frame or labels of another size or type than the above.
            UserError: nothing is left of the frame at ``scale``.
        """
        self._check(frame, labels)
        if labels is None and not self.bank.frames:
            return np.zeros(frame.shape[:2], np.uint8)
        small = self._shrink(frame)
        flow = self._flow_of(frame, small)
        if upcoming is not None:
            self._look_ahead(upcoming, small, annotated=labels is not None)
        lab = self._pad(torch.from_numpy(to_lab(small)).to(self.device))
        features, colours = self._encode(lab), self._colours(lab)
        if self.bank.frames:
            answer = torch.from_numpy(np.array(self.ids, np.uint8))[self._predict(flow, features, colours)]
            if labels is not None:
                answer = paint(answer, torch.from_numpy(labels))
        else:
            answer = torch.from_numpy(labels)
        self._given = [] if labels is None else np.unique(labels[labels > 0]).tolist()
        self.ids += [label for label in self._given if label not in self.ids]
        remembered = Remembered(features, self._small_labels(answer, small), small, colours)
        self._remember(remembered, annotated=labels is not None)
        self.time += 1
        return answer.numpy()

    def _check(self, frame: np.ndarray, labels: np.ndarray | None) -> None:
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame must be uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}")
        size = frame.shape[:2]
        if labels is not None and (labels.dtype != np.uint8 or labels.shape != size):
            raise ValueError(f"labels must be uint8 {list(size)}, not {labels.dtype} {list(labels.shape)}")
        if self.shape is not None and size != self.shape:
            raise ValueError(f"a frame of {list(size)} in a video of {list(self.shape)}; reset() between videos")
        self.shape = size

    def _shrink(self, frame: np.ndarray) -> np.ndarray:
        """The frame at the size that is worked with."""
        step = 1 / self.scale
        if step == round(step):
            return np.ascontiguousarray(frame[:: round(step), :: round(step)])
        if round(min(frame.shape[:2]) * self.scale) < 1:
            raise UserError(f"--scale {self.scale}: nothing is left of {frame.shape[1]}x{frame.shape[0]} pixels")
        return cv2.resize(frame, None, fx=self.scale, fy=self.scale, interpolation=cv2.INTER_AREA)

    def _shrink_labels(self, labels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """The labels [H, W] at the working size: the pixel under each of its pixels."""
        rows, columns = (
            (torch.arange(small) / self.scale).long().clamp_max(full - 1)
            for small, full in zip(size, labels.shape, strict=True)
        )
        return labels[rows[:, None], columns]

    def _pad(self, x: torch.Tensor) -> torch.Tensor:
        """[..., h, w] zero-padded at the right and bottom to a multiple of ``pad_divisible``."""
        return F.pad(x, (0, -x.shape[-1] % self.pad_divisible, 0, -x.shape[-2] % self.pad_divisible))

    def _encode(self, lab: torch.Tensor) -> torch.Tensor:
        lab = lab[None].contiguous(memory_format=torch.channels_last)
        amp = torch.autocast(self.device.type, self.half) if self.half else contextlib.nullcontext()
        with amp:
            return self._encoder(lab)[0].float()

    def _colours(self, lab: torch.Tensor) -> torch.Tensor | None:
        """Of Lab [3, H, W] the mean of each label's pixels [3, f*h, f*w], in units whose squares are to be summed."""
        if not self.colour:
            return None
        unit = torch.from_numpy(LAB_SCALE / COLOUR_UNIT * self.colour**0.5).to(lab.device)[:, None, None]
        return unit * F.avg_pool2d(lab, STRIDE // self.label_detail)

    def _predict(self, flow: Future | None, features: torch.Tensor, colours: torch.Tensor | None) -> torch.Tensor:
        """Indices of labels, int64 [H, W] on the CPU."""
        memory = self.bank.read(self.time)
        # Stacked with the channels last, as encoders and backends have them, so that it is one plain copy
        keys = torch.stack([m.features.movedim(0, -1) for m in memory.values()]).movedim(-1, 1)
        held = torch.stack([m.labels for m in memory.values()])
        moved = None if flow is None else self._fit(flow.result().to(self.device), features)
        both = None if colours is None else (colours, torch.stack([m.colours for m in memory.values()]))
        shares = propagate_labels(features, keys, held, len(self.ids), flow=moved, colours=both, **self.matching)
        if self.background != 1:
            shares[0] *= self.background
            shares /= shares.sum(0).clamp_min(torch.finfo(shares.dtype).tiny)
        if self.specks:
            shares = without_specks(shares, self.specks, self._scattered)
        self._shares = shares
        index = upsample_argmax(shares, self._full_size(shares))
        return index[: self.shape[0], : self.shape[1]].long().cpu()

    def _full_size(self, shares: torch.Tensor) -> tuple[int, int]:
        """The size of the frame that shares [K, h, w] are of, with its padding, in the video's own pixels."""
        pixels = STRIDE / self.label_detail / self.scale
        # A scaled side that is no whole number was rounded, maybe down
        return tuple(max(round(n * pixels), side) for n, side in zip(shares.shape[-2:], self.shape, strict=True))

    @staticmethod
    def _fit(flow: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Flow [M, 2, h, w] at the size of features, which are of the padded frame."""
        below, right = features.shape[-2] - flow.shape[-2], features.shape[-1] - flow.shape[-1]
        return F.pad(flow, (0, right, 0, below), mode="replicate")

    def _flow_of(self, frame: np.ndarray, small: np.ndarray) -> Future | None:
        """The flow [M, 2, h, w] of the frame of this step to those it reads; None if there is none to compute."""
        prepared, self._upcoming = self._upcoming, None
        if self.flow is None or not self.bank.frames:
            return None
        if prepared is not None and prepared[0] is frame:
            return prepared[1]
        memory = {t: held.frame for t, held in self.bank.read(self.time).items()}
        return self._compute_flow(small, memory, self.time)

    def _look_ahead(self, upcoming: np.ndarray, small: np.ndarray, annotated: bool) -> None:
        """Begin with the flow of the next step; ``small`` is this step's frame, which it may read already."""
        if self.flow is None or upcoming.shape[:2] != self.shape:
            return
        known = {t: held.frame for t, held in self.bank.frames.items()} | {self.time: small}
        given = self.bank.annotated + [self.time] * annotated
        memory = {t: known[t] for t in self.bank.rule.reads(self.time + 1, given)}
        self._upcoming = upcoming, self._compute_flow(self._shrink(upcoming), memory, self.time + 1)

    def _compute_flow(self, small: np.ndarray, memory: Mapping[int, np.ndarray], time: int) -> Future:
        if self._carried is not None:
            return self._flow_thread.submit(self._carried, small, memory, time)
        return self._flow_thread.submit(self.flow, small, list(memory.values()), [time - t for t in memory])

    def probabilities(self) -> np.ndarray | None:
        """Of the last step: float32 [K, H, W], the probability of each label of :attr:`ids` at each pixel.

        None before the first prediction. The labels of a step are its argmax, unless they were given.
        """
        if self._shares is None:
            return None
        fine = F.interpolate(self._shares[None], size=self._full_size(self._shares), mode="bilinear")[0]
        return fine[:, : self.shape[0], : self.shape[1]].cpu().numpy()

    def certainty(self) -> np.ndarray | None:
        """Of the last step: float32 [h, w], the winning label's probability; None before there is one.

        As fine as labels are, every pixel (``label_detail`` 4) to every fourth (1) of the size that is worked with.
        """
        if self._shares is None:
            return None
        stride = STRIDE // self.label_detail
        height, width = (-(-round(side * self.scale) // stride) for side in self.shape)
        return self._shares.amax(0)[:height, :width].float().cpu().numpy()

    @torch.inference_mode()
    def confidence(self) -> dict[int, float]:
        """Of the last step: how far each object's mask can be trusted, 0..1; 0 for one that is not seen.

        The J that the votes promise, times the share of the object's mask, where it was last given, that is
        recognized in it (:mod:`models.confidence`). A mask that was given for this frame counts 1.
        """
        if self._answer is None:
            return {}
        recognized = self._looks.recognized(self._answer.features, self._coarse(self._answer.labels))
        overlap = [0.0] * len(self.ids) if self._shares is None else expected_overlap(self._shares).tolist()
        overlap += [0.0] * (len(self.ids) - len(overlap))
        return {
            label: 1.0 if label in self._given else overlap[k] * recognized.get(k, 0.0)
            for k, label in enumerate(self.ids)
            if k
        }

    def _coarse(self, labels: torch.Tensor) -> torch.Tensor:
        """Remembered labels, one of each position."""
        middle = self.label_detail // 2
        return labels[middle :: self.label_detail, middle :: self.label_detail]

    def _small_labels(self, answer: torch.Tensor, small: np.ndarray) -> torch.Tensor:
        """Of an answer [H, W], the indices of labels that are remembered, int16 [f*h, f*w]."""
        index_of = torch.zeros(256, dtype=torch.int16)
        index_of[self.ids] = torch.arange(len(self.ids), dtype=torch.int16)
        labels = self._pad(self._shrink_labels(answer, small.shape[:2]))
        return subsample(index_of[labels.long()], STRIDE // self.label_detail).to(self.device)

    def _remember(self, answer: Remembered, annotated: bool) -> None:
        self._answer = answer
        if annotated and self.specks:
            self._scattered |= scattered_labels(answer.labels, self.specks)
        indices = [self.ids.index(label) for label in self._given]
        self._looks.learn(answer.features, self._coarse(answer.labels), indices)
        self.bank.add(self.time, answer, annotated)


def propagate_video(
    propagator: MaskPropagator, frames: Iterable[np.ndarray], labels: Mapping[int, np.ndarray]
) -> Iterator[np.ndarray]:
    """Label a whole video: an iterator in, an iterator out, nothing kept.

    Args:
        propagator: is reset first.
        frames: uint8 RGB [H, W, 3].
        labels: uint8 [H, W] by the number of their frame, counted from 0.

    Yields:
        uint8 [H, W] for every frame.
    """
    propagator.reset()
    for t, (frame, upcoming) in enumerate(with_next(frames)):
        yield propagator.step(frame, labels.get(t), upcoming)
