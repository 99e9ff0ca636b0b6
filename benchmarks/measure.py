"""Measuring one thing in a process of its own, and the heading of every table."""

from __future__ import annotations

import multiprocessing
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy
import torch


def heading() -> str:
    """The machine and the versions that a table was made with."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{_cpu()}, {torch.get_num_threads()} threads, {gpu}; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, OpenCV {cv2.__version__}, NumPy {numpy.__version__}"
    )


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def peak_memory() -> float:
    """The most memory this process has had so far, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def measure(prepare: Callable[..., Callable[[], object]], *arguments: object, repeats: int = 3) -> tuple[float, float]:
    """Time and memory of one thing, in a fresh process.

    Args:
        prepare: a module's function; called with the arguments it returns what is to be measured.
        repeats: how often that runs after once to warm up.

    Returns:
        Median seconds, and by how many MB the peak of memory rose above what was there before.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (prepare, arguments, repeats))


def _measure(prepare, arguments, repeats) -> tuple[float, float]:
    run = prepare(*arguments)
    before, seconds = peak_memory(), []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:] or seconds), peak_memory() - before


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
