#!/usr/bin/env python
"""The web page: open a video, paint its objects in one frame, propagate, correct, download."""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import cv2
import gradio as gr
import numpy as np

from datasets import synthetic
from datasets.video_writer import VideoWriter
from engine import inference, options
from engine.session import Session
from models import DavisMemory, MaskPropagator
from utils.errors import UserError
from utils.first_mask import mask_from_boxes
from utils.visualization import COLOURS, overlay

OBJECTS = 6  # colours to paint with
PAUSE = 0.3  # seconds between two pictures of the progress: browsers do not keep up with more
PAINT, BOX = "the object itself", "a box around it"
HELP = """**1** open a video  **2** go to a frame and paint each object in a colour of its own  **3** propagate.
Wrong somewhere? Go to that frame, correct it there with the brush and the eraser, and propagate on from it."""


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 opens it to the network")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--max-upload", type=int, default=500, metavar="MB", help="larger files are refused")
    parser.add_argument("--max-frames", type=int, default=3000, help="longer videos are refused")
    inference.add_options(parser, memory_length=5, pad_divisible=4, scale=1.0)
    return inference.parse(parser, argv)


def main(argv: list[str] | None) -> None:
    args = parse(argv)
    processes, _ = options.start(args)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # Gradio's own requests are nobody's news
    propagator = inference.make_propagator(args, processes.device, DavisMemory(args.memory_length))
    with tempfile.TemporaryDirectory(prefix="mamp-app-") as root:  # what visitors left behind goes when the page ends
        page = build(propagator, args.max_frames, root)
        page.queue(default_concurrency_limit=1).launch(
            server_name=args.host,
            server_port=args.port,
            max_file_size=f"{args.max_upload}mb",
            theme=gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
        )


def build(propagator: MaskPropagator, most_frames: int, root: str | None = None) -> gr.Blocks:
    """The page; the propagator lends its weights and settings, and every run has a memory of its own."""
    with gr.Blocks(title="Motion-Aware Mask Propagation", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        session = gr.State(None, time_to_live=6 * 3600, delete_callback=_close)
        gr.Markdown(f"# Motion-Aware Mask Propagation\n{HELP}")
        with gr.Row():
            with gr.Column():
                upload = gr.File(label="Video", file_types=["video"], height=130, elem_id="upload")
                demo = gr.Button("Use the demo clip", elem_id="demo")
                number = gr.Slider(0, 1, 0, step=1, label="Frame", interactive=True, elem_id="frame")
                editor = gr.ImageEditor(
                    label="Paint here", brush=gr.Brush(default_size=12, colors=_colours(), color_mode="fixed"),
                    transforms=(), sources=(), layers=gr.LayerOptions(allow_additional_layers=False),
                    elem_id="editor", height=420,
                )  # fmt: skip
                way = gr.Radio([PAINT, BOX], value=PAINT, label="What you paint is", elem_id="way")
                keep = gr.Button("Keep this mask", elem_id="keep")
            with gr.Column():
                result = gr.Image(label="Result", interactive=False, elem_id="result", format="jpeg", height=420)
                status = gr.Markdown("Open a video.", elem_id="status")
                with gr.Row():
                    go = gr.Button("Propagate", variant="primary", elem_id="go")
                    on = gr.Button("Propagate on from this frame", elem_id="on")
                    stop = gr.Button("Stop", elem_id="stop")
                prepare = gr.Button("Prepare downloads", elem_id="prepare")
                files = gr.File(label="Downloads", file_count="multiple", interactive=False, elem_id="files")

        def open_video(old: Session | None, path: str):
            new = _told(Session, path, most_frames, root)
            _close(old)
            shown = gr.Slider(0, new.length - 1, 0, step=1)
            return new, shown, new.frame(0), None, f"{new.length} frames. Paint the objects in one of them.", None

        def open_demo(old: Session | None):
            return open_video(old, str(demo_clip()))

        def show(state: Session | None, i: int):
            if state is None:
                return None, None
            frame, labels = _told(state.frame, i), state.labels(i)
            if labels is None:
                return frame, None
            return {"background": frame, "layers": [_painted(labels)], "composite": None}, overlay(frame, labels)

        def keep_mask(state: Session | None, i: int, painted: dict, what: str):
            if state is None:
                raise gr.Error("Open a video first.")
            frame = _told(state.frame, i)
            labels = labels_of(painted, frame.shape[:2])
            if not labels.any() and state.labels(i) is None:
                raise gr.Error("Nothing is painted in this frame.")
            if what == BOX and labels.any():
                labels = from_boxes(frame, labels)
            state.give(i, labels)
            given = ", ".join(map(str, state.given)) or "none"
            return overlay(frame, labels), f"Frames with a mask of yours: {given}."

        def run(state: Session | None, start: int) -> Iterator:
            if state is None:
                raise gr.Error("Open a video first.")
            labelled = state.propagate(propagator.another(), start)
            try:
                shown = 0.0
                with closing(labelled):
                    for item in labelled:
                        if time.monotonic() - shown < PAUSE:
                            continue
                        shown = time.monotonic()
                        lost = [str(k) for k, sure in item.confidence.items() if sure < 0.1]
                        note = f" Lost: object {', '.join(lost)}." if lost else ""
                        yield overlay(item.frame, item.labels), f"Frame {item.number + 1} of {state.length}.{note}"
            except UserError as error:
                raise gr.Error(str(error)) from error
            yield gr.skip(), f"Done: {state.length} frames. Go through them with the slider."

        def export(state: Session | None):
            if state is None:
                raise gr.Error("Open a video first.")
            return [str(path) for path in _told(state.export)]

        opened = [session, number, editor, result, status, files]
        upload.upload(open_video, [session, upload], opened)
        demo.click(open_demo, session, opened)
        number.change(show, [session, number], [editor, result], show_progress="hidden", trigger_mode="always_last")
        keep.click(keep_mask, [session, number, editor, way], [result, status])
        whole = go.click(lambda state: (yield from run(state, 0)), session, [result, status], show_progress="hidden")
        rest = on.click(run, [session, number], [result, status], show_progress="hidden")
        stop.click(lambda: "Stopped. What is done is kept.", None, status, cancels=[whole, rest])
        prepare.click(export, session, files)
    return page


def _told(function, *arguments):
    """The function's answer; what the user can put right is shown to them."""
    try:
        return function(*arguments)
    except UserError as error:
        raise gr.Error(str(error)) from error


def _close(session: Session | None) -> None:
    if session is not None:
        session.close()


def _colours() -> list[str]:
    return ["#%02x%02x%02x" % tuple(COLOURS[k]) for k in range(1, OBJECTS + 1)]  # noqa: UP031


def _painted(labels: np.ndarray) -> np.ndarray:
    """Labels uint8 [H, W] as a layer to paint on, RGBA."""
    return np.dstack((COLOURS[labels], np.uint8(255) * (labels > 0)))


def labels_of(painted: dict | None, shape: tuple[int, int]) -> np.ndarray:
    """Labels uint8 [H, W] of an image editor's layers: the palette's colour that is nearest, where it is opaque."""
    labels = np.zeros(shape, np.uint8)
    for layer in (painted or {}).get("layers") or []:
        layer = cv2.resize(np.asarray(layer), shape[::-1], interpolation=cv2.INTER_NEAREST)
        if layer.ndim != 3 or layer.shape[2] != 4:
            continue
        known = COLOURS[1 : OBJECTS + 1].astype(np.int16)
        distance = np.abs(layer[:, :, None, :3].astype(np.int16) - known).sum(3)
        opaque = layer[..., 3] > 127
        labels[opaque] = distance.argmin(2)[opaque] + 1
    return labels


def from_boxes(frame: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """The object in the box around each colour's strokes, uint8 [H, W]."""
    labels = np.zeros(strokes.shape, np.uint8)
    for label in np.unique(strokes[strokes > 0]):
        x, y, w, h = cv2.boundingRect((strokes == label).astype(np.uint8))
        labels[_told(mask_from_boxes, frame, [(x, y, w, h)]) > 0] = label
    return labels


def demo_clip() -> Path:
    """The project's own clip as a video file, made once."""
    path = Path(tempfile.gettempdir()) / "mamp-demo" / "demo.mp4"
    if not path.is_file():
        video = synthetic.SyntheticVideo(48, 428, 240)
        with VideoWriter(path, video.fps) as writer:
            for frame in video:
                writer.write(frame)
    return path


if __name__ == "__main__":
    options.run(main)
