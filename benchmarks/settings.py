"""What each setting of inference brings: python -m benchmarks.settings --datapath DAVIS [--sequences A,B] [--rows X,Y]

Every row is the default preset but for what it names: J&F on DAVIS-2016, as `evaluate_davis.py --year 2016` scores it.
Features and flow are computed once for all rows. Every sequence is also run mirrored, which should change nothing
(training mirrors half its samples): what a setting changes less than a mirror does is no difference. One process a
core, sequences shared out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os

import numpy as np
import torch
import torch.nn as nn
from tqdm import tqdm

from benchmarks.measure import heading, table
from datasets.davis import Davis
from engine import options
from engine.adaptation import adapt
from engine.inference import DEFAULT_CHECKPOINT
from models import MAMP, PRESETS, MaskPropagator, propagate_video
from models.encoder import for_inference
from models.optical_flow import DIS
from utils.metrics import score_object


class Once(nn.Module):
    """An encoder that computes no frame twice."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = for_inference(encoder)
        self.channels, self.metric, self.temperature = encoder.channels, encoder.metric, encoder.temperature
        self.seen: dict[int, torch.Tensor] = {}

    def __deepcopy__(self, memo):
        return self

    def forward(self, lab: torch.Tensor) -> torch.Tensor:
        key = hash(lab.numpy().tobytes())
        if key not in self.seen:
            self.seen[key] = self.encoder(lab).half()
        return self.seen[key].float()


class FlowOnce:
    """DIS that computes no pair of frames twice; ``checked`` leaves out what does not lead back to where it was."""

    seen: dict[tuple, torch.Tensor] = {}  # of the sequence: every one has a process of its own

    def __init__(self, preset: str = "medium", reduction: int = 2, checked: bool = False):
        self.name, self.checked = (preset, reduction), checked
        self.dis = DIS(preset=preset, reduction=reduction)

    def __call__(self, query, memories, gaps):
        return torch.stack([self._checked(query, memory) if self.checked else self._flow(query, memory)
                            for memory in memories])  # fmt: skip

    def _flow(self, query, memory):
        key = (self.name, hash(query.tobytes()), hash(memory.tobytes()))
        if key not in self.seen:
            self.seen[key] = self.dis(query, [memory], [1])[0]
        return self.seen[key]

    def _checked(self, query, memory):
        there, back = self._flow(query, memory), self._flow(memory, query)
        height, width = there.shape[-2:]
        x = (torch.arange(width) + there[0]).round().clamp(0, width - 1).long()
        y = (torch.arange(height)[:, None] + there[1]).round().clamp(0, height - 1).long()
        error = (there + back[:, y, x]).norm(dim=0)
        lost = error > 1 + 0.1 * there.norm(dim=0)
        return there.masked_fill(lost, 1e4)  # out of the frame, where nothing takes part


ROWS = {
    "default": {},
    "carry_flow 0": {"carry_flow": False},
    "flow none": {"flow": "none"},
    "DIS fast": {"flow": lambda: FlowOnce("fast")},
    "DIS at full resolution": {"flow": lambda: FlowOnce(reduction=1)},
    "flow checked forward-backward": {"flow": lambda: FlowOnce(checked=True)},
    "border zero": {"border": "zero"},
    "locality 0": {"locality": 0.0},
    "label_detail 1": {"label_detail": 1},
    "colour 0": {"colour": 0.0},
    "background 1": {"background": 1.0},
    "background 0.7": {"background": 0.7},
    "specks 0": {"specks": 0.0},
    "temperature 5": {"temperature": 5.0},
    "top_k 15": {"top_k": 15},
    "test_corr_radius 8": {"radius": 8},
    "memory_length 4": {"memory": 4},
    "memory_length 2": {"memory": 2},
    "preset paper with DIS": PRESETS["paper"] | {"flow": "dis"},
    "scale 0.75": {"scale": 0.75},
    "scale 0.5 (preset fast)": {"scale": 0.5},
    "adapt 50": {"adapt": 50},
}


def measure_sequence(task: tuple) -> dict[str, float]:
    """J&F of every row on one sequence, in percent."""
    root, name, checkpoint, rows, mirrored = task
    torch.set_num_threads(1)
    davis = Davis(root, 2016, "val", [name])
    turn = (lambda x: np.ascontiguousarray(x[:, ::-1])) if mirrored else (lambda x: x)
    video = davis.videos()[0]
    frames = [turn(frame) for frame in video.frames]
    truth = [turn(davis.truth(file)[0]) > 0 for file in davis.scored_frames(name)]
    first = turn(video.labels(video.frames.name(0), frames[0].shape[:2]))
    model = MAMP.from_checkpoint(checkpoint, "cpu")
    model.encoder = Once(model.encoder)
    scores = {}
    for row in rows:
        settings = PRESETS["default"] | ROWS[row]
        flow = settings["flow"]
        settings["flow"] = flow() if callable(flow) else FlowOnce() if flow == "dis" else flow
        steps = settings.pop("adapt", 0)
        used = adapt(MAMP.from_checkpoint(checkpoint, "cpu"), frames, steps, quiet=True) if steps else model
        masks = list(propagate_video(MaskPropagator(used, **settings), frames, {0: first}))
        score = score_object(name, truth, [mask > 0 for mask in masks[1 : len(truth) + 1]])
        scores[row] = 50 * (score.j.mean() + score.f.mean())
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datapath", required=True, help="DAVIS folder")
    parser.add_argument("--sequences", type=options.names, help="a subset of the validation set")
    parser.add_argument("--rows", type=options.names, default=list(ROWS), help=f"a subset of: {', '.join(ROWS)}")
    parser.add_argument("--plain", action="store_true", help="nothing mirrored, in half the time")
    parser.add_argument("--resume", default=DEFAULT_CHECKPOINT, help="weights")
    args = parser.parse_args()
    names = Davis(args.datapath, 2016, "val", args.sequences).names
    ways = [False] if args.plain else [False, True]
    tasks = [(args.datapath, name, args.resume, args.rows, mirrored) for mirrored in ways for name in names]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        scores = list(tqdm(pool.imap(measure_sequence, tasks, chunksize=1), total=len(tasks), unit="sequence"))
    halves = [scores[start : start + len(names)] for start in range(0, len(scores), len(names))]
    lines = []
    for row in args.rows:
        means = [np.mean([score[row] for score in half]) for half in halves]
        each = [score[row] for score in halves[0]]
        lines.append([f"`{row}`", *(f"{value:.1f}" for value in [*means, *each])])
    print(heading(), "\n")
    print(table(["settings", *["mean", "mirrored"][: len(ways)], *names], lines))


if __name__ == "__main__":
    main()
