"""The commands as a user runs them: what they write, and how they refuse."""

import html
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, run_entry, write_frames
from PIL import Image

from datasets.video import VideoFile
from datasets.video_writer import VideoWriter
from utils.masks import read_mask, write_mask

LAB = ("--arch", "lab")


def refused(result, *words):
    """One line that names the trouble, exit status 2, no traceback."""
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, result.stderr
    for word in words:
        assert str(word) in errors[0]


def self_contained(report, *words):
    """An HTML page with curves and pictures that loads nothing from anywhere."""
    text = report.read_text()
    assert all(word in html.unescape(text) for word in words)
    assert text.count("<polyline") >= 2 and text.count("data:image/jpeg;base64,") >= 2
    assert "http" not in text and "<script" not in text
    for tag in ("table", "svg", "figure", "body"):
        assert text.count(f"<{tag}") == text.count(f"</{tag}>") > 0, tag


def test_davis_writes_masks_and_scores(davis_folder, tmp_path):
    common = ("--datapath", davis_folder, "--savepath", tmp_path, "--proc_name", "run", *LAB)
    result = run_entry("evaluate_davis.py", *common)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "run/DAVIS"
    assert sorted(p.name for p in (folder / "one").glob("*.png")) == [f"{t:05d}.png" for t in range(8)]
    scores = (folder / "global_results-val.csv").read_text()
    assert 0.4 < float(scores.splitlines()[1].split(",")[0]) < 1

    again = run_entry("evaluate_davis.py", *common)
    assert again.stderr.count("complete already") == 2
    (folder / "one/00003.png").unlink()
    assert run_entry("evaluate_davis.py", *common).stderr.count("complete already") == 1
    assert "complete already" not in run_entry("evaluate_davis.py", *common, "--top_k", 5).stderr

    run_entry("evaluate_davis.py", *common, "--overwrite")
    only = run_entry("evaluate_davis.py", *common, "--proc_name", "other", "--score_only", folder, "--report")
    assert only.returncode == 0 and (folder / "global_results-val.csv").read_text() == scores
    assert "J&F-Mean" in only.stderr
    self_contained(folder / "report.html", "one_3", "two_1", "J&F-Mean", "top_k", "torch")


def test_two_processes_evaluate_as_one(davis_folder, tmp_path):
    common = ("--datapath", davis_folder, "--savepath", tmp_path, *LAB)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert run_entry("evaluate_davis.py", *common, "--proc_name", "one").returncode == 0
    result = run_entry("evaluate_davis.py", *common, "--proc_name", "two", launcher=torchrun)
    assert result.returncode == 0, result.stderr
    for file in (tmp_path / "one/DAVIS").rglob("*.[pc][ns][gv]"):
        other = tmp_path / "two/DAVIS" / file.relative_to(tmp_path / "one/DAVIS")
        assert other.read_bytes() == file.read_bytes(), file


def test_youtube_vos_writes_every_listed_frame_and_the_zip(tmp_path, clip):
    root = tmp_path / "YT/valid"
    write_frames(root / "JPEGImages/v", [np.kron(frame, np.ones((2, 2, 1), np.uint8)) for frame, _ in clip])
    first, later = (np.kron(clip[t][1], np.ones((2, 2), np.uint8)) for t in (0, 3))
    write_mask(root / "Annotations/v/00000.png", np.where(first == 2, 0, first))
    write_mask(root / "Annotations/v/00003.png", np.where(later == 2, later, 0))
    frames = {"1": ["00000", "00005"], "2": ["00003", "00005", "00007"], "3": ["00000", "00005"]}
    meta = {"videos": {"v": {"objects": {i: {"category": "x", "frames": names} for i, names in frames.items()}}}}
    (root / "meta.json").write_text(json.dumps(meta))
    result = run_entry("evaluate_ytb.py", "--datapath", tmp_path / "YT", "--savepath", tmp_path, "--report", *LAB)
    assert result.returncode == 0, result.stderr
    self_contained(tmp_path / "evaluate_ytb/report.html", "confidence of object 3", "pad_divisible")
    out = tmp_path / "evaluate_ytb"
    expected = ["00000", "00003", "00005", "00007"]
    assert sorted(p.stem for p in (out / "Annotations/v").glob("*.png")) == expected
    assert zipfile.ZipFile(out / "Annotations.zip").namelist() == [f"Annotations/v/{n}.png" for n in expected]
    last = read_mask(out / "Annotations/v/00007.png", (192, 320))
    assert set(np.unique(last)) == {0, 1, 2, 3}
    (root / "JPEGImages/v/00005.jpg").unlink()
    refused(run_entry("evaluate_ytb.py", "--datapath", tmp_path / "YT", "--savepath", tmp_path, *LAB), "00005.jpg")


def test_demo_on_a_folder_and_on_a_video(demo_folder, tmp_path, clip):
    result = run_entry("demo.py", "--datapath", demo_folder, "--savepath", tmp_path, "--flow", "none", *LAB)
    assert result.returncode == 0, result.stderr
    assert len(list((tmp_path / "demo/clip/masks").glob("*.png"))) == 8
    assert len(list(VideoFile(tmp_path / "demo/clip/overlay.mp4"))) == 8
    assert Image.open(tmp_path / "demo/clip/summary.png").size == (960, 384)

    with VideoWriter(tmp_path / "mine.mp4", 10) as writer:
        for frame, _ in clip:
            writer.write(frame)
    mask = demo_folder / "valid_demo/Annotations/clip/00000.png"
    mine = ("demo.py", "--video", tmp_path / "mine.mp4", "--mask", mask, "--savepath", tmp_path, *LAB)
    assert run_entry(*mine).returncode == 0
    assert len(list((tmp_path / "demo/mine/masks").glob("*.png"))) == 8
    assert VideoFile(tmp_path / "demo/mine/overlay.mp4").fps == 10
    assert "complete already" in run_entry(*mine).stderr
    write_mask(mask, 1 * (clip[0][1] > 0).astype(np.uint8))
    assert "complete already" not in run_entry(*mine).stderr, "another mask is another job"


def test_demo_makes_its_own_clip(tmp_path):
    """The main job, on what ships: every other test of the entries needs no weights, this one uses them."""
    copied = tmp_path / "project"
    ignored = shutil.ignore_patterns(".git", ".venv", "results", "cache", "DEMO", "DAVIS", "YOUTUBE")
    shutil.copytree(ROOT, copied, ignore=ignored)
    result = subprocess.run(
        [sys.executable, str(copied / "demo.py"), "--scale", "0.25", "--savepath", str(tmp_path)],
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "J&F" in result.stderr
    assert len(list((tmp_path / "demo/synthetic/masks").glob("*.png"))) == 60
    assert len(list(VideoFile(tmp_path / "demo/synthetic/overlay.mp4"))) == 60


def test_ctrl_c_leaves_whole_masks(tmp_path, clip):
    frames = [np.kron(frame, np.ones((3, 3, 1), np.uint8)) for frame, _ in clip] * 20
    write_frames(tmp_path / "frames", frames)
    write_mask(tmp_path / "mask.png", np.kron(clip[0][1], np.ones((3, 3), np.uint8)))
    command = ["--video", tmp_path / "frames", "--mask", tmp_path / "mask.png", "--savepath", tmp_path, *LAB]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "demo.py"), *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    masks = tmp_path / "demo/frames/masks"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(masks.glob("*.png"))) < 3:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors and "The same command again" in errors
    written = list(masks.iterdir())
    assert 3 <= len(written) < len(frames)
    assert all(read_mask(file).shape == (288, 480) for file in written)
    assert not list((tmp_path / "demo/frames").glob("*.mp4"))


@pytest.mark.parametrize(
    ("breaking", "words"),
    [
        ("no video", ["nowhere.mp4"]), ("not a video", ["text.mp4", "decoded"]), ("no mask", ["nowhere.png"]),
        ("rgb mask", ["rgb.png", "picture"]), ("empty mask", ["empty.png", "empty"]),
        ("other size", ["small.png", "8x8", "160x96"]), ("truncated", ["00004.jpg", "truncated"]),
        ("resized", ["00004", "80x48"]), ("cuda", ["CUDA"]), ("checkpoint", ["nowhere.pt"]),
        ("unwritable", ["mask.png/sub"]), ("scale", ["--scale 2"]), ("arch", ["--arch lab"]),
    ],
)  # fmt: skip
def test_demo_refuses_in_one_line(tmp_path, clip, breaking, words):
    write_frames(tmp_path / "frames", [frame for frame, _ in clip])
    write_mask(tmp_path / "mask.png", clip[0][1])
    write_mask(tmp_path / "empty.png", 0 * clip[0][1])
    write_mask(tmp_path / "small.png", np.ones((8, 8), np.uint8))
    Image.fromarray(clip[0][0]).save(tmp_path / "rgb.png")
    (tmp_path / "text.mp4").write_text("no video")
    fourth = tmp_path / "frames/00004.jpg"
    if breaking == "truncated":
        fourth.write_bytes(fourth.read_bytes()[:900])
    if breaking == "resized":
        cv2.imwrite(str(fourth), np.zeros((48, 80, 3), np.uint8))
    options = {"--video": "frames", "--mask": "mask.png", "--savepath": "out"} | {
        "no video": {"--video": "nowhere.mp4"}, "not a video": {"--video": "text.mp4"},
        "no mask": {"--mask": "nowhere.png"}, "rgb mask": {"--mask": "rgb.png"}, "empty mask": {"--mask": "empty.png"},
        "other size": {"--mask": "small.png"}, "unwritable": {"--savepath": "mask.png/sub"},
        "checkpoint": {"--resume": "nowhere.pt"}, "arch": {"--resume": "mask.png"},
    }.get(breaking, {})  # fmt: skip
    argv = [part for key, value in options.items() for part in (key, tmp_path / value)]
    argv += [] if breaking == "checkpoint" else LAB
    argv += {"cuda": ("--device", "cuda"), "scale": ("--scale", 2)}.get(breaking, ())
    refused(run_entry("demo.py", *argv), *words)


def test_a_video_of_one_frame(tmp_path, clip):
    with VideoWriter(tmp_path / "one.mp4", 10) as writer:
        writer.write(clip[0][0])
    write_mask(tmp_path / "mask.png", clip[0][1])
    result = run_entry(
        "demo.py", "--video", tmp_path / "one.mp4", "--mask", tmp_path / "mask.png", "--savepath", tmp_path, *LAB
    )
    assert result.returncode == 0, result.stderr
    assert (read_mask(tmp_path / "demo/one/masks/00000.png") == clip[0][1]).all()


def test_the_other_entries_refuse_in_one_line(tmp_path, davis_folder):
    out = ("--savepath", tmp_path / "out")
    refused(run_entry("evaluate_davis.py", "--datapath", tmp_path / "nowhere", *LAB, *out), "nowhere", "JPEGImages")
    davis = ("evaluate_davis.py", "--datapath", davis_folder, *LAB, *out)
    refused(run_entry(*davis, "--sequences", "three"), "three", "one, two")
    refused(run_entry(*davis, "--memory_length", 3), "--memory_length 3")
    refused(run_entry(*davis, "--flow", "raft_small", "--flow_weights", tmp_path / "raft.pth"), "raft.pth")
    refused(run_entry(*davis, "--score_only", tmp_path / "none"), "none/one/00001.png")
    shutil.rmtree(davis_folder / "JPEGImages/480p/two")
    refused(run_entry(*davis), "JPEGImages/480p/two")
    refused(run_entry("evaluate_ytb.py", "--datapath", tmp_path, *LAB, *out), "meta.json")
    refused(run_entry("main_train.py", "--datapath", tmp_path / "nowhere", *out), "nowhere")


@pytest.mark.parametrize("script", ["test_demo", "test_davis", "test_ytb", "train"])
def test_scripts_pass_options_on_and_return_the_status(script, tmp_path):
    """From another directory, in the environment at hand, with the program's own exit status."""
    environment = {"VIRTUAL_ENV": sys.prefix, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    path = ROOT / "scripts" / f"{script}.sh"

    def run(*options):
        return subprocess.run(
            ["sh", str(path), *options], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )

    helped = run("--help")
    assert helped.returncode == 0 and "usage:" in helped.stdout and "setup: using the active" in helped.stderr
    refused(run("--datapath", "nowhere", "--savepath", str(tmp_path)), "nowhere")


def test_every_script_is_posix_sh():
    for path in Path(ROOT / "scripts").glob("*.sh"):
        assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0
        assert path.read_text().startswith("#!/bin/sh\n")
