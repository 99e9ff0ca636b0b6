"""Self-supervised training (Sections 3.1 and 4.1): learn to reconstruct a frame's colour from earlier frames."""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import signal
import time
from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from datasets.davis import Davis
from datasets.unlabeled import EpochSampler, FrameTuples, find_clips
from engine.inference import segment_all
from engine.objective import colour_loss, flow_loss, reconstruct
from engine.scoring import score_sequence
from models import MAMP, PRESETS, MaskPropagator
from utils import checkpoint
from utils.distributed import Processes
from utils.errors import UserError
from utils.metrics import summarize
from utils.signals import StopSignals
from utils.visualization import lab_to_rgb

log = logging.getLogger(__name__)


def learning_rate(args: argparse.Namespace, step: int, total_steps: int) -> float:
    """The learning rate of a step: the paper's halving by samples seen, or a cosine after a warm-up."""
    if args.schedule == "paper":
        samples = step * args.bsize
        return args.lr * 0.5 ** sum(samples >= milestone for milestone in (400e3, 600e3, 800e3, 1000e3))
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    done = (step - args.warmup) / max(1, total_steps - args.warmup)
    return args.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Trainer:
    """One training: model, optimiser, data, and where it is among the epochs.

    Args:
        args: the options of main_train.py.
        processes: who trains together; ``args.bsize`` is the batch of all of them.
        half: what to compute the encoder in, or None for float32.
    """

    def __init__(self, args: argparse.Namespace, processes: Processes, half: torch.dtype | None = None):
        self.args, self.processes, self.device, self.half = args, processes, processes.device, half
        if args.bsize % processes.world:
            raise UserError(f"--bsize {args.bsize} cannot be shared by {processes.world} processes evenly")
        self.folder = Path(args.savepath) / args.proc_name
        torch.manual_seed(args.seed)
        self.model = MAMP(args.arch, args.train_corr_radius).to(self.device, memory_format=torch.channels_last)
        if not any(p.requires_grad for p in self.model.parameters()):
            raise UserError(f"--arch {args.arch} has no parameters to train")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half == torch.float16)
        self.average = None
        if args.ema:
            average = get_ema_multi_avg_fn(args.ema)
            self.average = AveragedModel(self.model, multi_avg_fn=average, use_buffers=False)
        self.davis = None
        if args.eval_datapath:
            self.davis = Davis(args.eval_datapath, args.eval_year, "val", args.eval_sequences)
        self.data, self.sampler, self.loader = self._open_data()
        self.steps_an_epoch = self.sampler.usable // args.bsize
        self.total_steps = args.epochs * self.steps_an_epoch if args.steps is None else args.steps
        self.step = 0
        last = self.folder / "last.pt"
        if args.resume == "auto":
            args.resume = last if last.is_file() else None
        if args.resume:
            self.load(args.resume)
        elif args.init:
            self._start_from(args.init)
        self.trained = self._distributed()

    def _open_data(self):
        args = self.args
        if len(args.intervals) != len(args.interval_probs):
            raise UserError("--intervals and --interval_probs must be equally many")
        # The first process fills the cache; the others then find it full
        if not self.processes.first:
            self.processes.gather("cache filled")
        clips = find_clips(args.datapath, args.cache)
        if self.processes.first:
            self.processes.gather("cache filled")
        data = FrameTuples(
            clips,
            ref_num=args.ref_num,
            size=args.img_size,
            intervals=args.intervals,
            probabilities=args.interval_probs,
            augmentation=args.augmentation,
            zoom=args.zoom,
            skip_static=args.skip_static,
            flow=args.flow_loss > 0,
            seed=args.seed,
        )
        sampler = EpochSampler(len(data), args.seed, args.bsize, self.processes.rank, self.processes.world)
        if not sampler.usable:
            raise UserError(f"{len(data)} samples in {','.join(args.datapath)} are less than one --bsize {args.bsize}")
        loader = DataLoader(
            data,
            args.bsize // self.processes.world,
            sampler=sampler,
            num_workers=args.worker,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_trainer,
            # Of its own, or every start of an epoch would move on the generator that a resumed run goes on with
            generator=torch.Generator(),
        )
        log.info(
            "%d clips, %d frames; %d steps of %d samples an epoch (%d a process)",
            len(data.clips),
            len(data),
            sampler.usable // args.bsize,
            args.bsize,
            args.bsize // self.processes.world,
        )
        return data, sampler, loader

    def _distributed(self) -> torch.nn.Module:
        if self.processes.world == 1:
            return self.model
        if self.device.type == "cuda":
            self.model = torch.nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        return DistributedDataParallel(self.model)

    def run(self) -> None:
        """Train until the last step; Ctrl-C or SIGTERM saves and stops after the step at hand."""
        with StopSignals() as stop:
            self._run(stop)

    def _run(self, stop: StopSignals) -> None:
        writer = SummaryWriter(self.folder / "tensorboard") if self.processes.first else None
        bar = tqdm(total=self.total_steps, initial=self.step, unit="step", disable=not self.processes.first)
        losses, since = [], time.monotonic()
        for frames, matches in self._batches():
            channel = int(torch.randint(1, 3, ()))
            loss, picture = self.train_step(frames, channel, matches)
            losses.append(loss)
            bar.update()
            if self.step % self.args.log_every == 0 or self.step == self.total_steps:
                speed = len(losses) * self.args.bsize / (time.monotonic() - since)
                self._log(writer, torch.stack(losses).mean().item(), speed, bar)
                losses, since = [], time.monotonic()
            if writer and self.step % self.args.picture_every == 0:
                self._log_picture(writer, frames, picture, channel)
            if self.step % self.args.save_every == 0:
                self.save()
            if self.davis and self.step % self.args.eval_every == 0:
                self._evaluate(writer)
            if stop.asked:
                break
        bar.close()
        self.save()
        if stop.asked:
            log.warning("stopped at step %d; go on with --resume %s", self.step, self.folder / "last.pt")
            raise KeyboardInterrupt

    def _batches(self):
        """Frames [B, M+1, 3, H, W] and, for the flow loss, where their positions match; else None."""
        for epoch in itertools.count(self.step // self.steps_an_epoch):
            self.sampler.seek(epoch, self.step % self.steps_an_epoch * self.args.bsize)
            for sample in self.loader:
                if self.step >= self.total_steps:
                    return
                frames, matches = sample if self.data.flow else (sample, None)
                frames = frames.to(self.device, non_blocking=True)
                yield frames, None if matches is None else matches.to(self.device, non_blocking=True)

    def train_step(
        self, frames: torch.Tensor, channel: int, matches: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One update on frames [B, M+1, 3, H, W]; returns the loss and the reconstruction [B, 1, H, W]."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.args, self.step, self.total_steps)
        self.trained.train()
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            picture, query, memory = reconstruct(self.trained, frames, channel)
        loss = colour_loss(picture, frames, channel)
        if matches is not None:
            loss = loss + self.args.flow_loss * flow_loss(query, memory, matches)
        if not torch.isfinite(loss):
            raise UserError(f"the loss is not finite at step {self.step}; lower --lr, or leave --is_amp out")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        if self.average is not None:
            self.average.update_parameters(self.model)
        return loss.detach(), picture.detach()

    def _log(self, writer: SummaryWriter | None, loss: float, speed: float, bar: tqdm) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        bar.set_postfix(loss=f"{loss:.4f}")
        log.info("step %d/%d  loss %.4f  lr %.2e  %.1f samples/s", self.step, self.total_steps, loss, rate, speed)
        if writer:
            writer.add_scalar("loss", loss, self.step)
            writer.add_scalar("learning rate", rate, self.step)
            writer.add_scalar("samples per second", speed, self.step)

    def _log_picture(self, writer, frames, picture, channel) -> None:
        """Side by side: the input, without the channel; what it should become; and the reconstruction."""
        target = frames[0, -1]
        given, rebuilt = target.clone(), target.clone()
        given[channel], rebuilt[channel] = 0, picture[0, 0]
        shown = [torch.from_numpy(lab_to_rgb(lab.float().cpu().numpy())) for lab in (given, target, rebuilt)]
        writer.add_image("input, target, reconstruction", torch.cat(shown, 1), self.step, dataformats="HWC")

    def _evaluate(self, writer: SummaryWriter | None) -> None:
        """Log J&F on DAVIS with the weights as they are; the first process does it while the others wait."""
        if writer:
            model = MAMP(self.model.arch).to(self.device)
            model.load_weights(self.weights(), "the weights in training")
            folder = self.folder / "DAVIS"
            propagator = MaskPropagator(model, **PRESETS["default"])
            segment_all(self.davis.videos(), propagator, folder.joinpath, {}, overwrite=True, quiet=True)
            scores = [s for name in self.davis.names for s in score_sequence(self.davis, name, folder)]
            overall = summarize(scores)
            log.info("step %d/%d  J&F %.2f on DAVIS", self.step, self.total_steps, 100 * overall["J&F-Mean"])
            for measure in ("J&F-Mean", "J-Mean", "F-Mean"):
                writer.add_scalar(f"DAVIS/{measure}", overall[measure], self.step)
        self.processes.gather("evaluated")

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights to use: the running average where there is one."""
        weights = self.model.state_dict()
        if self.average is not None:
            weights = weights | dict(self.average.module.named_parameters())
        return {name: value.detach() for name, value in weights.items()}

    def save(self) -> None:
        """Write last.pt, to resume from, and model.safetensors, to use."""
        if not self.processes.first:
            return
        checkpoint.save_training(self.folder / "last.pt", self.state())
        checkpoint.save_weights(self.folder / "model.safetensors", self.weights(), self.model.arch, step=str(self.step))

    def state(self) -> dict:
        """Everything that decides how the training goes on."""
        return {
            "arch": self.model.arch,
            "state_dict": self.model.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "rng": torch.get_rng_state(),
            "step": self.step,
            "batch": self.args.bsize,
        }

    def _start_from(self, names: list[str]) -> None:
        """Take the mean of the weights of files, or of runs of these names in the same --savepath."""
        runs = [Path(self.args.savepath) / name / "model.safetensors" for name in names]
        paths = [run if run.is_file() else Path(name) for run, name in zip(runs, names, strict=True)]
        weights = [MAMP.from_checkpoint(path, self.device).state_dict() for path in paths]
        for path, other in zip(paths, weights, strict=True):
            self.model.load_weights(other, path)
        mean = {name: sum(other[name] for other in weights) / len(weights) for name in weights[0]}
        self.model.load_state_dict({name: value.to(weights[0][name].dtype) for name, value in mean.items()})
        log.info("starting from the weights in %s", ", ".join(map(str, paths)))

    def load(self, path: str | Path) -> None:
        """Go on where a training checkpoint stopped.

        Raises:
            UserError: unreadable, weights alone, of another architecture, or made with another batch size.
        """
        weights, about = checkpoint.load(path)
        if "optimizer" not in about:
            raise UserError(f"{path}: weights alone, no training to resume; start from them with --init {path}")
        self.model.load_weights(weights, path)
        self.model.load_state_dict(weights)  # the running statistics' counters too
        if about["batch"] != self.args.bsize:
            raise UserError(
                f"{path} was trained with --bsize {about['batch']}; resume with the same, not {self.args.bsize}"
            )
        self.optimizer.load_state_dict(about["optimizer"])
        self.scaler.load_state_dict(about["scaler"])
        if self.average is not None and about["average"] is not None:
            self.average.load_state_dict(about["average"])
        torch.set_rng_state(about["rng"])
        self.step = about["step"]
        log.info("resumed %s at step %d", path, self.step)


def _leave_signals_to_the_trainer(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; a loader that died of it would end the step at hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
