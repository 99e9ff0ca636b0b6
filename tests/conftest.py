"""Shared by the tests: where the optional data is, small videos, and running an entry as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are defined: they then run on the CPU

from utils.masks import write_mask

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("MAMP_SHARED", ROOT.parent / "shared"))

torch.set_num_threads(2)


def _optional(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not there; set MAMP_SHARED to the folder that holds golden/ and data/")
    return path


@pytest.fixture(scope="session")
def golden() -> Path:
    """Numbers of the paper's code and the official DAVIS tool."""
    return _optional(SHARED / "golden")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real sequences: davis/ and ytvos/."""
    return _optional(SHARED / "data")


@pytest.fixture(scope="session")
def clip() -> list[tuple[np.ndarray, np.ndarray]]:
    """Eight frames, 160x96: three coloured, textured squares that move before a grey texture, with their labels."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(0, 40, (96, 160, 1)).astype(np.float32), (0, 0), 2)[..., None] * 2
    colours = [(210, 60, 50), (60, 180, 70), (70, 80, 220)]
    corners = [((8, 10), (2, 3)), ((50, 20), (-1, 4)), ((30, 116), (2, -3))]  # (y, x) at first, and a frame
    frames = []
    for t in range(8):
        frame, labels = np.clip(120 + texture, 0, 255).repeat(3, 2), np.zeros((96, 160), np.uint8)
        for i, (((y, x), (dy, dx)), colour) in enumerate(zip(corners, colours, strict=True), start=1):
            inside = np.s_[y + dy * t : y + dy * t + 36, x + dx * t : x + dx * t + 36]
            frame[inside] = np.clip(np.array(colour) + texture[:36, :36], 0, 255)
            labels[inside] = i
        frames.append((frame.astype(np.uint8), labels))
    return frames


@pytest.fixture
def demo_folder(tmp_path, clip) -> Path:
    """The clip in the DEMO layout."""
    write_frames(tmp_path / "DEMO/valid_demo/JPEGImages/clip", [frame for frame, _ in clip])
    write_mask(tmp_path / "DEMO/valid_demo/Annotations/clip/00000.png", clip[0][1])
    return tmp_path / "DEMO"


@pytest.fixture
def davis_folder(tmp_path, clip) -> Path:
    """The clip as two sequences in the DAVIS layout, one of them mirrored."""
    root = tmp_path / "DAVIS"
    for name, flip in (("one", 1), ("two", -1)):
        write_frames(root / "JPEGImages/480p" / name, [frame[:, ::flip] for frame, _ in clip])
        for t, (_, labels) in enumerate(clip):
            write_mask(root / f"Annotations/480p/{name}/{t:05d}.png", labels[:, ::flip])
    (root / "ImageSets/2017").mkdir(parents=True)
    (root / "ImageSets/2017/val.txt").write_text("one\ntwo\n")
    return root


def write_frames(folder: Path, frames: list[np.ndarray]) -> None:
    """uint8 RGB [H, W, 3] as 00000.jpg, 00001.jpg, ..."""
    folder.mkdir(parents=True)
    for t, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{t:05d}.jpg"), np.ascontiguousarray(frame[..., ::-1]))


def run_entry(name: str, *arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    """Run an entry in a process of its own; stdout and stderr as text."""
    command = [sys.executable, *launcher, str(ROOT / name), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
