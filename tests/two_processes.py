"""Run by test_training.py, alone and under torchrun: the gradients of one step, over all processes.

Batch normalisation uses its running statistics here: on CPUs the processes do not share a batch's.
"""

import sys

import torch

import main_train
from engine.objective import colour_loss, reconstruct
from engine.training import Trainer
from utils import distributed

if __name__ == "__main__":
    with distributed.join(torch.device("cpu")) as processes:
        run = Trainer(main_train.parse(sys.argv[2:]), processes)
        run.trained.eval()
        frames, _ = next(run._batches())
        colour_loss(reconstruct(run.trained, frames, 1)[0], frames, 1).backward()
        if processes.first:
            torch.save({name: p.grad for name, p in run.model.named_parameters()}, sys.argv[1])
