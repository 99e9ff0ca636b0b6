"""Streaming inference (Section 3.2): one frame in, one label map out, in constant memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from datasets.transforms import to_lab
from functional import paint, propagate_labels, subsample, upsample_argmax
from functional.labels import STRIDE
from models.encoder import for_inference
from models.mamp import MAMP
from models.memory_bank import DavisMemory, MemoryBank, MemoryRule, Remembered
from models.optical_flow import FlowEstimator, flow_estimator

PRESETS = {
    "paper": {"flow": "raft_large", "border": "zero", "locality": 0.0, "label_offset": 0},
    "default": {"flow": "dis", "border": "exclude", "locality": 0.02, "label_offset": 1},
    "fast": {"flow": "dis", "border": "exclude", "locality": 0.02, "label_offset": 1, "scale": 0.5},
}
"""Settings for :class:`MaskPropagator`, whose own defaults are the paper's but for the flow, which needs no download.
Measured in benchmarks/settings.md."""


class MaskPropagator:
    """Carries the labels of annotated frames through a video, frame by frame.

    >>> propagator = MaskPropagator(MAMP.from_checkpoint("ckpt/light.safetensors"), **PRESETS["default"])
    >>> first = propagator.step(frames[0], labels)
    >>> second = propagator.step(frames[1])

    Args:
        model: in eval mode, on the device to run on.
        flow: a name ("dis", "raft_large", "raft_small", "none") or a flow estimator (:mod:`models.optical_flow`);
            None is "none".
        memory: which frames are remembered, a rule or the ``memory_length`` of :class:`DavisMemory`.
        radius: R, the half width of the search window in positions of stride 4.
        top_k: how many candidates vote; None means all.
        border: "zero" as the paper, or "exclude": whether what is outside the frame takes part.
        temperature: divides the scores; None means the encoder's own, in most cases sqrt(C).
        locality: how much candidates lose by their distance, see :func:`functional.propagate`; the paper's is 0.
        label_offset: which pixel of 4x4 gives a position its label, see :func:`functional.subsample`; the paper's is 0.
        scale: frames are worked on at this size; 0.5 takes every second pixel, as the paper does for
            YouTube-VOS. Masks keep the size of the frames.
        pad_divisible: working frames are zero-padded to a multiple of this (a multiple of 4).
        half: torch.float16 or torch.bfloat16 to compute the encoder in, None for float32.
        backend: of the matching, see :func:`functional.available_backends`.
    """

    def __init__(
        self,
        model: MAMP,
        *,
        flow: str | FlowEstimator | None = "dis",
        memory: MemoryRule | int = 5,
        radius: int = 12,
        top_k: int | None = 36,
        border: str = "zero",
        temperature: float | None = None,
        locality: float = 0.0,
        label_offset: int = 0,
        scale: float = 1.0,
        pad_divisible: int = 4,
        half: torch.dtype | None = None,
        backend: str = "auto",
    ):
        if pad_divisible < STRIDE or pad_divisible % STRIDE:
            raise ValueError(f"pad_divisible must be a multiple of {STRIDE}, not {pad_divisible}")
        if not 0 < scale <= 1:
            raise ValueError(f"scale must be above 0 and at most 1, not {scale}")
        self.use(model)
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.flow = flow_estimator(flow, device=self.device) if isinstance(flow, str) else flow
        self.scale, self.pad_divisible, self.half = scale, pad_divisible, half
        self.label_offset = label_offset
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
        self.reset()

    def use(self, model: MAMP) -> None:
        """Take the encoder of another model of the same architecture, before a video's first frame."""
        self.model = model
        self._encoder = for_inference(model.encoder)

    def reset(self) -> None:
        """Forget the video; the next :meth:`step` starts another."""
        self.bank.clear()
        self.time = 0
        self.shape: tuple[int, int] | None = None
        self.ids = [0]  # the label of each index that the memory holds

    @torch.inference_mode()
    def step(self, frame: np.ndarray, labels: np.ndarray | None = None) -> np.ndarray:
        """Label the next frame.

        Args:
            frame: uint8 RGB [H, W, 3], all frames of a video of one size.
            labels: uint8 [H, W], object numbers 1..255, or None. On the first labelled frame they are the
                answer; later, their non-zero part is painted over the prediction (it adds or corrects
                objects), and the frame is remembered from then on.

        Returns:
            uint8 [H, W]; all 0 before the first labels.

        Raises:
            ValueError: frame or labels of another size or type than the above.
        """
        self._check(frame, labels)
        if labels is None and not self.bank.frames:
            return np.zeros(frame.shape[:2], np.uint8)
        small = self._shrink(frame)
        features = self._encode(small)
        if self.bank.frames:
            answer = torch.from_numpy(np.array(self.ids, np.uint8))[self._predict(small, features, frame.shape[:2])]
            if labels is not None:
                answer = paint(answer, torch.from_numpy(labels))
        else:
            answer = torch.from_numpy(labels)
        self._remember(small, features, answer, annotated=labels is not None)
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

    def _encode(self, small: np.ndarray) -> torch.Tensor:
        lab = self._pad(torch.from_numpy(to_lab(small))[None].to(self.device))
        lab = lab.contiguous(memory_format=torch.channels_last)
        amp = torch.autocast(self.device.type, self.half) if self.half else contextlib.nullcontext()
        with amp:
            return self._encoder(lab)[0].float()

    def _predict(self, small: np.ndarray, features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Indices of labels, int64 [H, W] on the CPU."""
        memory = self.bank.read(self.time)
        keys = torch.stack([m.features for m in memory.values()])
        held = torch.stack([m.labels for m in memory.values()])
        flow = None if self.flow is None else self._flow(small, memory)
        shares = propagate_labels(features, keys, held, len(self.ids), flow=flow, **self.matching)
        index = upsample_argmax(shares, STRIDE / self.scale)
        return index[: size[0], : size[1]].long().cpu()

    def _flow(self, small: np.ndarray, memory: Mapping[int, Remembered]) -> torch.Tensor:
        """[M, 2, h, w] at the size of the features."""
        gaps = [self.time - t for t in memory]
        flow = self.flow(small, [m.frame for m in memory.values()], gaps).to(self.device)
        height, width = next(iter(memory.values())).labels.shape
        return F.pad(flow, (0, width - flow.shape[-1], 0, height - flow.shape[-2]), mode="replicate")

    def _remember(self, small: np.ndarray, features: torch.Tensor, answer: torch.Tensor, annotated: bool) -> None:
        if annotated:
            self.ids += [i for i in answer.unique().tolist() if i not in self.ids]
        index_of = torch.zeros(256, dtype=torch.int16)
        index_of[self.ids] = torch.arange(len(self.ids), dtype=torch.int16)
        labels = self._pad(self._shrink_labels(answer, small.shape[:2]))
        labels = subsample(index_of[labels.long()], self.label_offset).to(self.device)
        self.bank.add(self.time, Remembered(features, labels, small), annotated)


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
    for t, frame in enumerate(frames):
        yield propagator.step(frame, labels.get(t))
