"""Several processes under torchrun, or one without it: the same code for both."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Processes:
    """This process among all: ``rank`` of ``world``, and its device. As a context manager it leaves the group."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and logs."""
        return self.rank == 0

    def share(self, things: list) -> list:
        """Every ``world``-th of the things: this process's share."""
        return things[self.rank :: self.world]

    def gather(self, thing: object) -> list:
        """The ``thing`` of every process, in the order of ranks, known to all of them."""
        if self.world == 1:
            return [thing]
        things: list = [None] * self.world
        dist.all_gather_object(things, thing)
        return things

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind, error, trace) -> None:
        """Leave the group, all at once: one that leaves while another still talks to it aborts that other."""
        if self.world > 1 and kind is None:
            dist.barrier()
            dist.destroy_process_group()


def join(device: torch.device) -> Processes:
    """Join the group that torchrun set up in the environment; without torchrun, a group of one.

    CUDA processes take the GPU of their local rank and talk by nccl, CPU processes by gloo.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Processes(0, 1, device)
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Processes(dist.get_rank(), world, device)
