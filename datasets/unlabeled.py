"""Unlabelled video to train on: folders of frames and video files, and the samples drawn from them."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from tqdm import tqdm

from datasets.correspondence import matches
from datasets.transforms import AUGMENTATIONS, to_lab
from datasets.video import IMAGE_SUFFIXES, VIDEO_SUFFIXES, VideoFile, list_images
from utils.errors import UserError

log = logging.getLogger(__name__)


def find_clips(datapaths: Sequence[str | Path], cache: str | Path, short_side: int = 256) -> list[list[Path]]:
    """The frame files of every clip below some folders.

    A folder with images in it is a clip (YouTube-VOS: <datapath>/<video>/00000.jpg); a video file becomes
    one by being decoded once into ``cache``, as JPEGs with the given short side.

    Raises:
        UserError: a folder does not exist, or there is nothing to train on in it.
    """
    clips = []
    for root in map(Path, datapaths):
        if not root.is_dir():
            raise UserError(f"{root}: no such folder of training videos")
        found = [list_images(folder) for folder in _folders_of_images(root)]
        videos = sorted(p for p in root.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        for video in tqdm(videos, desc=f"decoding {root.name}", unit="video", disable=not videos):
            try:
                found.append(list_images(_decode_once(video, Path(cache), short_side)))
            except UserError as error:
                log.warning("left out: %s", error)
        if not found:
            raise UserError(f"{root}: neither folders of frames nor video files in it")
        clips += found
    return clips


def _folders_of_images(root: Path) -> list[Path]:
    folders = sorted(folder for folder, _, files in os.walk(root) if any(_is_image(file) for file in files))
    return [Path(folder) for folder in folders]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _decode_once(video: Path, cache: Path, short_side: int) -> Path:
    """The folder in the cache that holds the frames of a video; decodes it if it is not there yet."""
    about = f"{video.resolve()} {video.stat().st_size} {video.stat().st_mtime_ns} {short_side}"
    folder = cache / f"{video.stem}-{hashlib.sha256(about.encode()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    half_done = folder.with_name(f".{os.getpid()}.{folder.name}")
    try:
        half_done.mkdir(parents=True)
        for i, frame in enumerate(VideoFile(video)):
            scale = min(1.0, short_side / min(frame.shape[:2]))
            small = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
            if not cv2.imwrite(str(half_done / f"{i:05d}.jpg"), bgr, [cv2.IMWRITE_JPEG_QUALITY, 95]):
                raise UserError(f"cannot write to the cache {cache}: is the disk full?")
        if not folder.is_dir():  # another process may have been faster
            half_done.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write to the cache {cache}: {error.strerror}") from error
    finally:
        shutil.rmtree(half_done, ignore_errors=True)
    return folder


class FrameTuples(Dataset):
    """``ref_num`` memory frames and a query frame from one clip, at a random interval (Section 4.1).

    An item is float32 [ref_num + 1, 3, size, size] Lab, the query last. Its randomness comes from the seed,
    the epoch and the index alone, so it is the same whichever process loads it and after any resume.
    With ``flow`` it comes with int64 [ref_num, size/4 * size/4], where each position of the query is in each
    memory frame (:func:`datasets.correspondence.matches`).

    Args:
        clips: frame files by clip, as :func:`find_clips` gives them, or frames uint8 RGB [H, W, 3] themselves.
        ref_num: how many memory frames.
        size: side of the samples in pixels.
        intervals, probabilities: frames between two neighbours of a sample, and how often each is drawn.
        augmentation: "squash" (the paper's) or "crop", at ``zoom`` times the frame.
        skip_static: redraw samples whose first and last frame differ by less than this, in grey levels of
            0..255 on average; 0 keeps all.
    """

    def __init__(
        self,
        clips: list[list[Path]] | list[list[np.ndarray]],
        *,
        ref_num: int,
        size: int,
        intervals: Sequence[int],
        probabilities: Sequence[float],
        augmentation: str,
        zoom: tuple[float, float] = (0.6, 1.2),
        skip_static: float = 0,
        flow: bool = False,
        seed: int = 0,
    ):
        self.clips = [clip for clip in clips if len(clip) > ref_num]
        if not self.clips:
            raise UserError(f"no clip has more than {ref_num} frames, which a sample of --ref_num {ref_num} needs")
        self.ref_num, self.size, self.flow, self.seed = ref_num, size, flow, seed
        self.intervals, self.probabilities = list(intervals), np.array(probabilities) / sum(probabilities)
        self.augment, self.zoom, self.skip_static = AUGMENTATIONS[augmentation], zoom, skip_static
        self.index = [(c, f) for c, clip in enumerate(self.clips) for f in range(len(clip))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: tuple[int, int]) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        epoch, item = key
        rng = np.random.default_rng([self.seed, epoch, item])
        clip, first = self.index[item]
        for _ in range(4):
            frames = [self._read(file) for file in self._draw(self.clips[clip], first, rng)]
            if _difference(frames[0], frames[-1]) >= self.skip_static:
                break
            clip, first = self.index[rng.integers(len(self.index))]
        frames = self.augment(frames, self.size, rng, self.zoom)
        lab = torch.from_numpy(np.stack([to_lab(frame) for frame in frames]))
        if not self.flow:
            return lab
        return lab, torch.from_numpy(np.stack([matches(frames[-1], memory) for memory in frames[:-1]]))

    def _draw(self, clip: list[Path], first: int, rng: np.random.Generator) -> list[Path]:
        """Frames from ``first`` on, forward or backward in time, at an interval that fits into the clip."""
        interval = int(rng.choice(self.intervals, p=self.probabilities))
        interval = min(interval, (len(clip) - 1) // self.ref_num)
        span = interval * self.ref_num
        if first + span >= len(clip) and first < span:
            first = int(rng.integers(len(clip) - span))
        backward = first + span >= len(clip) or (first >= span and rng.random() < 0.5)
        step = -interval if backward else interval
        return [clip[first + i * step] for i in range(self.ref_num + 1)]

    def _read(self, file: Path | np.ndarray) -> np.ndarray:
        if isinstance(file, np.ndarray):
            return file
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise UserError(f"{file}: not a readable image; remove it or extract it again")
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a[::8, ::8].astype(np.int16) - b[::8, ::8]).mean()) if a.shape == b.shape else np.inf


class EpochSampler(Sampler):
    """The samples of one epoch for one process, shuffled by the seed, from any position on.

    Args:
        length: samples in the data set; rank, world: this process and how many there are.
        batch: samples a step over all processes: an incomplete last step is left out.
    """

    def __init__(self, length: int, seed: int, batch: int, rank: int = 0, world: int = 1):
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.usable = length // batch * batch
        self.epoch = self.start = 0

    def seek(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch and leave out its first ``start`` samples (counted over all processes)."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return (self.usable - self.start) // self.world

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.length)[: self.usable]
        return ((self.epoch, int(i)) for i in order[self.start + self.rank :: self.world])
