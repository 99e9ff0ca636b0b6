"""The one inference loop: annotated videos in, folders of masks out."""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path

import torch
from tqdm import tqdm

from datasets.annotated import AnnotatedVideo
from datasets.davis import Davis
from datasets.youtube_vos import YouTubeVOS
from engine.adaptation import adapt
from engine.directions import Labelled, label_frames
from engine.options import ROOT, can_compile, half_precision
from functional import available_backends
from models import MAMP, PRESETS, MaskPropagator
from models.encoder import ENCODERS
from models.memory_bank import MemoryRule
from models.optical_flow import NAMES as FLOWS
from models.optical_flow import flow_estimator
from utils.background import Behind
from utils.checkpoint import replacing
from utils.distributed import Processes
from utils.errors import UserError
from utils.masks import write_mask
from utils.signals import StopSignals

log = logging.getLogger(__name__)

DEFAULT_CHECKPOINT = ROOT / "ckpt" / "light.safetensors"
SETTINGS = ".settings.json"  # written into a video's folder when all its masks are: it is complete

PRESETS_HELP = "paper: its settings, with RAFT; default: ours, without a download; fast: ours at half the resolution"


def add_options(parser: argparse.ArgumentParser, *, memory_length: int, pad_divisible: int, scale: float) -> None:
    """The options of all inference entries; the arguments are their defaults that differ."""
    add = parser.add_argument
    add("--savepath", default=str(ROOT / "results"), help="outputs go to SAVEPATH/PROC_NAME")
    add("--proc_name", default=Path(parser.prog).stem, help="name of this run")
    add("--resume", metavar="CHECKPOINT", help=f"weights; default ckpt/{DEFAULT_CHECKPOINT.name}")
    add("--arch", choices=list(ENCODERS), help="encoder; default: what the checkpoint says (lab needs none)")
    add("--memory_length", type=int, default=memory_length, help="how many frames are remembered")
    add("--pad_divisible", type=int, default=pad_divisible, help="frames are padded to a multiple of this")
    add("--test_corr_radius", type=int, default=12, help="matching radius at stride 4")
    add("--top_k", type=int, default=36, help="candidates that vote; 0: all")
    add("--preset", default="default", choices=list(PRESETS), help=PRESETS_HELP)
    add("--border", choices=["zero", "exclude"], help="candidates outside the frame; default: the preset's")
    add("--locality", type=float, help="what candidates lose by their squared distance; default: the preset's")
    add("--label_detail", type=int, choices=[1, 2, 4], help="labels per side of a position; default: the preset's")
    add("--colour", type=float, help="how much votes from another colour lose; default: the preset's")
    add("--background", type=float, help="how much the background's votes count; default: the preset's")
    add("--specks", type=float, help="drop far pieces below this share of their object; default: the preset's")
    add("--temperature", type=float, help="divides the scores; default: the encoder's own, sqrt(channels)")
    add("--scale", type=float, help=f"size to work at, as a fraction of the frame's; default {scale}, or the preset's")
    add("--optical_flow_warp", type=int, default=1, choices=[0, 1], help="0: as --flow none")
    add("--flow", choices=FLOWS, help="optical flow that moves the search window; default: the preset's")
    add("--carry_flow", type=int, choices=[0, 1], help="1: also carry it on from frame to frame; default: the preset's")
    add("--flow_weights", metavar="FILE", help="local weights for RAFT, instead of torchvision's download")
    add("--adapt", type=int, default=0, metavar="STEPS", help="train on each video's own frames first, on a copy")
    add("--backend", default="auto", choices=["auto", *available_backends()], help="of the matching")
    add("--is_amp", action="store_true", help="half precision: float16 on CUDA, bfloat16 on a CPU that has it")
    add("--compile", action="store_true", help="run the encoder through torch.compile; on a CPU it needs g++")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--seed", type=int, default=0, help="inference draws nothing at random; kept for scripts that pass it")
    add("--overwrite", action="store_true", help="do complete videos again")
    parser.set_defaults(entry_scale=scale)


def parse(parser: argparse.ArgumentParser, argv: list[str] | None) -> argparse.Namespace:
    """Parse the options of an inference entry; what they leave open is as the preset says."""
    args = parser.parse_args(argv)
    for name, value in ({"scale": args.entry_scale} | PRESETS[args.preset]).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def load_model(args: argparse.Namespace, device: torch.device) -> MAMP:
    """The model that --arch and --resume name.

    Raises:
        UserError: no such checkpoint, or one of another architecture.
    """
    if args.arch == "lab":
        if args.resume:
            raise UserError("--arch lab has no weights; leave --resume out")
        return MAMP("lab").to(device).eval()
    path = args.resume or DEFAULT_CHECKPOINT
    model = MAMP.from_checkpoint(path, device)
    if args.arch and MAMP(args.arch).arch != model.arch:
        raise UserError(f"{path} holds {model.arch} weights, not --arch {args.arch}")
    return model


def make_propagator(args: argparse.Namespace, device: torch.device, memory: MemoryRule) -> MaskPropagator:
    """A propagator as the options say; logs what was chosen."""
    if args.pad_divisible < 4 or args.pad_divisible % 4:
        raise UserError(f"--pad_divisible {args.pad_divisible}: must be a multiple of 4")
    if not 0 < args.scale <= 1:
        raise UserError(f"--scale {args.scale}: must be above 0 and at most 1")
    if args.test_corr_radius < 0 or args.top_k < 0 or args.locality < 0 or args.colour < 0:
        raise UserError("--test_corr_radius, --top_k, --locality and --colour must be 0 or more")
    if args.background <= 0 or (args.temperature or 1) <= 0:
        raise UserError("--background and --temperature must be above 0")
    if not 0 <= args.specks <= 1:
        raise UserError(f"--specks {args.specks}: must be 0 or more and at most 1")
    model = load_model(args, device)
    flow = args.flow if args.optical_flow_warp else "none"
    half = half_precision(args.is_amp, device)
    log.info(
        "encoder %s (%s), flow %s, matching %s, on %s in %s",
        model.arch,
        args.resume or "built in",
        flow,
        args.backend,
        device,
        str(half or torch.float32).removeprefix("torch."),
    )
    return MaskPropagator(
        model,
        flow=flow_estimator(flow, weights=args.flow_weights, device=device),
        carry_flow=bool(args.carry_flow),
        memory=memory,
        radius=args.test_corr_radius,
        top_k=args.top_k or None,
        border=args.border,
        locality=args.locality,
        label_detail=args.label_detail,
        colour=args.colour,
        background=args.background,
        specks=args.specks,
        temperature=args.temperature,
        scale=args.scale,
        pad_divisible=args.pad_divisible,
        half=half,
        compiled=args.compile and can_compile(device),
        backend=args.backend,
    )


def settings_of(args: argparse.Namespace) -> dict:
    """The options that decide the masks, and the weights' checksum: what a complete video was done with."""
    decisive = "arch memory_length pad_divisible test_corr_radius top_k border locality label_detail temperature scale"
    names = [
        *decisive.split(),
        "colour",
        "background",
        "specks",
        "optical_flow_warp",
        "flow",
        "carry_flow",
        "flow_weights",
        "is_amp",
        "adapt",
    ]
    weights = None if args.arch == "lab" else _checksum(Path(args.resume or DEFAULT_CHECKPOINT))
    return {name: getattr(args, name) for name in names} | {"weights": weights}


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


Consumer = Callable[[Labelled], None]


def segment_all(
    videos: Iterable[AnnotatedVideo],
    propagator: MaskPropagator,
    folder_of: Callable[[str], Path],
    settings: dict,
    *,
    overwrite: bool = False,
    adapt_steps: int = 0,
    quiet: bool = False,
    direction: str = "forward",
    masks: bool = True,
    watch: Callable[[AnnotatedVideo], AbstractContextManager[Consumer]] | None = None,
) -> None:
    """Write <frame>.png for the frames of every video; complete videos are left as they are.

    Args:
        folder_of: where the masks of a video go, by its name.
        settings: what decides the masks; complete means complete with the same settings and masks given.
        overwrite: do complete videos again.
        adapt_steps: how long to adapt the encoder to each video (:func:`engine.adaptation.adapt`).
        quiet: no progress bars.
        direction: see :func:`engine.directions.label_frames`.
        masks: whether to write the masks themselves.
        watch: opens what is called with every labelled frame of a video; confidence is computed for it.

    Raises:
        UserError: unreadable input or unwritable output. KeyboardInterrupt: after saying how to go on.
    """
    videos, model = list(videos), propagator.model
    for video in tqdm(videos, unit="video", disable=quiet or len(videos) == 1):
        folder = folder_of(video.name)
        made_with = settings | _inputs(video)
        if not overwrite and is_complete(folder, made_with):
            log.info("%s: complete already, skipped (--overwrite does it again)", video.name)
            continue
        try:
            with watch(video) if watch else nullcontext() as consumer:
                _forget(folder / SETTINGS)
                if adapt_steps:
                    propagator.use(adapt(model, video.frames, adapt_steps, quiet=quiet))
                written = segment(video, propagator, folder if masks else None, consumer, direction, quiet)
        except KeyboardInterrupt:
            log.warning(
                "stopped in %s; every mask written so far is whole. The same command again skips the complete "
                "videos and does this one from its start",
                video.name,
            )
            raise
        with replacing(folder / SETTINGS) as temporary:
            temporary.write_text(json.dumps({"settings": made_with, "frames": written}))


def segment_share(
    args: argparse.Namespace,
    processes: Processes,
    data: Davis | YouTubeVOS,
    rule: MemoryRule,
    folder: Path,
    *,
    overwrite: bool = False,
    watch: Callable[[AnnotatedVideo], AbstractContextManager[Consumer]] | None = None,
) -> None:
    """Segment this process's share of a data set into ``folder``/<video>, as the options say."""
    share = processes.share(data.names)
    segment_all(
        [video for video in data.videos() if video.name in share],
        make_propagator(args, processes.device, rule),
        folder.joinpath,
        settings_of(args) | ({"year": args.year} if "year" in args else {}),
        overwrite=args.overwrite or overwrite,
        adapt_steps=args.adapt,
        quiet=not processes.first,
        watch=watch,
    )


def _inputs(video: AnnotatedVideo) -> dict:
    """What a video's masks are made from, for telling whether they are still up to date."""
    changed = video.frames.path.stat().st_mtime_ns
    masks = {name: _checksum(file) for name, file in video.masks.items() if file.is_file()}
    return {"frames": str(video.frames.path.resolve()), "changed": changed, "masks": masks}


def is_complete(folder: Path, settings: dict) -> bool:
    """Whether all masks of a video were written into a folder with these settings and are still there."""
    try:
        done = json.loads((folder / SETTINGS).read_text())
    except (OSError, ValueError):
        return False
    there = {file.stem for file in folder.glob("*.png")}
    return done["settings"] == settings and there.issuperset(done["frames"])


def _forget(marker: Path) -> None:
    try:
        marker.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {marker.parent}: {error.strerror}") from error


def segment(
    video: AnnotatedVideo,
    propagator: MaskPropagator,
    folder: Path | None,
    consumer: Consumer | None,
    direction: str,
    quiet: bool,
) -> list[str]:
    """Propagate through one video and write its masks, if there is a folder; returns the names of those written.

    Frames are read ahead, and masks and what the consumer makes of them are written behind, in threads.
    """
    written, count, began = [], 0, time.monotonic()
    labelled = label_frames(video, propagator, direction, confident=consumer is not None, quiet=quiet)
    total = len(video.frames) or None
    with StopSignals() as stop, Behind() as behind, closing(labelled):
        for item in tqdm(labelled, desc=video.name, total=total, unit="frame", leave=False, disable=quiet):
            if folder is not None and (video.wanted is None or item.name in video.wanted):
                behind(write_mask, folder / f"{item.name}.png", item.labels)
                written.append(item.name)
            if consumer:
                behind(consumer, item)
            count += 1
            if stop.asked:
                raise KeyboardInterrupt
    log.info("%s: %d frames, %.1f frames/s", video.name, count, count / (time.monotonic() - began))
    return written
