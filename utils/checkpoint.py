"""Checkpoint files: safetensors, or PyTorch files read with weights_only=True. Writing is atomic."""

import contextlib
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from utils.errors import UserError


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside ``path`` to write to; it takes the place of ``path`` when the block succeeds.

    Whatever happens half way, ``path`` is either the old file or the complete new one.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def save_training(path: str | Path, state: dict) -> None:
    """Write everything that a training needs to go on (tensors, numbers and strings only)."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def save_weights(path: str | Path, weights: dict[str, torch.Tensor], arch: str, **about: str) -> None:
    """Write weights for inference: safetensors, float16, with the architecture in the file's metadata."""
    half = {
        name: (value.half() if value.is_floating_point() else value).contiguous().cpu()
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }
    with replacing(path) as temporary:
        save_file(half, temporary, metadata={"arch": arch, **about})


def load(path: str | Path) -> tuple[dict, dict]:
    """Read a checkpoint.

    Returns:
        The weights by name as they stand in the file, and what else the file says: the metadata of a
        safetensors file, all other entries of a training checkpoint.

    Raises:
        UserError: no such file, or not a checkpoint, or one that would need to run code to be read.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint file")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path}: holds more than tensors, numbers and strings, so it is not read (weights_only=True); "
            "save a state_dict or a safetensors file"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, KeyError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a readable checkpoint (.safetensors, .pt or .pth)") from error
    about = {}
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        about = {key: value for key, value in content.items() if key != "state_dict"}
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, torch.Tensor) for v in content.values()):
        raise UserError(f"{path}: no weights in it; expected a state_dict, alone or under the key state_dict")
    return content, about
