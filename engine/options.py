"""Command-line options that several entries share, and the frame around every entry."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from utils.distributed import Processes, join
from utils.errors import UserError
from utils.logging import set_up

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent  # the repository: default paths are in it, whatever the cwd


def run(main: Callable[[list[str] | None], int | None]) -> None:
    """Run an entry and end the process: 0, or 2 with one line on stderr for what the user can put right."""
    try:
        sys.exit(main(None) or 0)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def start(args: argparse.Namespace) -> tuple[Processes, Path]:
    """Join the other processes if there are any and set up the log; returns them and the output folder."""
    processes = join(device_of(args.device))
    output = Path(args.savepath) / args.proc_name
    set_up(output, quiet=not processes.first)
    return processes, output


def device_of(name: str) -> torch.device:
    """The device called "auto" (CUDA if there is one), "cpu", "cuda", "cuda:1" or "mps".

    Raises:
        UserError: unknown, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: no such device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch sees no CUDA GPU on this machine; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: this machine has {torch.cuda.device_count()} GPU(s), counted from 0")
    return device


def half_precision(asked: bool, device: torch.device) -> torch.dtype | None:
    """What --is_amp means on a device: float16 on CUDA, bfloat16 on a CPU that computes in it, else None.

    Where half precision would bring nothing, that is logged and float32 is used.
    """
    if not asked:
        return None
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and _has_bfloat16():
        return torch.bfloat16
    log.info("--is_amp is left out: this %s does not compute faster in half precision", device.type)
    return None


def _has_bfloat16() -> bool:
    """Whether this CPU computes in bfloat16, rather than imitating it."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    return torch.cpu._is_avx512_bf16_supported()  # before PyTorch 2.12 there was no public way to ask


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile works on a device; where it does not, that is logged."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        log.info("--compile is left out: on a CPU it needs a C++ compiler (g++), and there is none")
        return False
    return True


def numbers(kind: type) -> Callable[[str], list]:
    """An argparse type for a comma-separated list of numbers."""

    def parse(text: str) -> list:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list of numbers") from error

    return parse


def names(text: str) -> list[str]:
    """An argparse type for a comma-separated list of names."""
    return [part for part in text.split(",") if part]
