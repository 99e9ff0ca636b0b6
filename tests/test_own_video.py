"""A user's own video: the masks they give in whatever form, both directions, and every output in its own tool."""

import argparse
from fractions import Fraction

import av
import cv2
import numpy as np
import pandas
import pytest
from conftest import run_entry, write_frames
from PIL import Image
from pycocotools.coco import COCO

from datasets.annotated import AnnotatedVideo
from datasets.video import FrameFolder, Selection, VideoFile, open_frames, read_frame
from datasets.video_writer import VideoWriter
from engine.directions import label_frames
from engine.own_video import own_video
from models import MAMP, MaskPropagator
from utils.confidence import ConfidenceLog
from utils.errors import UserError
from utils.first_mask import mask_from_boxes, mask_from_points
from utils.masks import PALETTE, HandMadeMasks, write_mask


@pytest.fixture
def propagator():
    return MaskPropagator(MAMP("lab").eval(), flow="none", border="exclude")


@pytest.fixture
def folder(tmp_path, clip):
    write_frames(tmp_path / "frames", [frame for frame, _ in clip])
    for t, (_, labels) in enumerate(clip):
        write_mask(tmp_path / f"masks/{t:05d}.png", labels)
    return tmp_path


def jaccard(a, b):
    return ((a > 0) & (a == b)).sum() / ((a > 0) | (b > 0)).sum()


def annotated(folder, *frames):
    masks = {f"{t:05d}": folder / f"masks/{t:05d}.png" for t in frames}
    return AnnotatedVideo("frames", FrameFolder(folder / "frames"), masks)


# --- masks, as people save them ---


def test_masks_in_every_form_are_understood(tmp_path, clip):
    labels = clip[0][1]
    write_mask(tmp_path / "indexed.png", labels)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(PALETTE[labels]).save(tmp_path / "palette colours.png")
    own = np.array([(0, 0, 0), (250, 10, 10), (10, 240, 10), (20, 20, 255)], np.uint8)
    Image.fromarray(own[labels]).save(tmp_path / "own colours.png")
    transparent = np.dstack((own[labels] + np.uint8(3), np.uint8(255) * (labels > 0)))
    Image.fromarray(transparent).save(tmp_path / "transparent.png")
    soft = cv2.GaussianBlur(own[labels], (3, 3), 0.4)
    Image.fromarray(soft).save(tmp_path / "soft.png")
    for name in ("indexed", "grey", "palette colours", "own colours", "transparent"):
        read = HandMadeMasks().read(tmp_path / f"{name}.png", labels.shape)
        assert (read > 0).sum() == (labels > 0).sum() and jaccard(read > 0, labels > 0) == 1, name
        assert len(np.unique(read)) == 4, name
        if name in ("indexed", "grey", "palette colours"):
            assert (read == labels).all(), name
    assert jaccard(HandMadeMasks().read(tmp_path / "soft.png") > 0, labels > 0) > 0.9
    assert set(np.unique(HandMadeMasks().read(tmp_path / "soft.png"))) == {0, 1, 2, 3}


def test_a_colour_is_the_same_object_in_all_masks(tmp_path):
    red, blue = (200, 30, 30), (30, 30, 200)
    for name, colours in {"a": (red, blue), "b": (blue,), "c": (blue, red)}.items():
        picture = np.zeros((40, 60, 3), np.uint8)
        for i, colour in enumerate(colours):
            picture[5:30, 5 + 25 * i : 25 + 25 * i] = colour
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    masks = HandMadeMasks()
    first = masks.read(tmp_path / "a.png")
    assert (masks.read(tmp_path / "b.png")[10, 10], masks.read(tmp_path / "c.png")[10, 40]) == (
        first[10, 40],
        first[10, 10],
    )


def test_a_box_or_points_find_what_stands_out():
    rng = np.random.default_rng(0)
    frame = np.full((120, 160, 3), 90, np.uint8)
    truth = np.zeros((120, 160), np.uint8)
    cv2.circle(truth, (60, 60), 25, 1, -1)
    frame[truth > 0] = (200, 80, 60)
    frame = np.clip(frame + rng.normal(0, 6, frame.shape), 0, 255).astype(np.uint8)
    assert jaccard(mask_from_boxes(frame, [(25, 25, 70, 70)]), truth) > 0.9
    assert jaccard(mask_from_points(frame, [[(60, 60, True), (50, 50, True), (140, 20, False)]]), truth) > 0.9
    for make, wrong in ((mask_from_boxes, [(200, 0, 9, 9)]), (mask_from_points, [[(300, 1, True)]])):
        with pytest.raises(UserError, match="frame of 160x120"):
            make(frame, wrong)


def arguments(**changes):
    options = dict.fromkeys(("mask", "box", "points", "on", "end")) | {"start": 0, "every": 1}
    return argparse.Namespace(**(options | changes))


def test_masks_by_frame_number_by_name_and_in_a_folder(folder):
    video, masks = str(folder / "frames"), folder / "masks"
    assert list(own_video(arguments(video=video, mask=[str(masks / "00003.png")]), folder).masks) == ["00000"]
    both = [str(masks / "00000.png"), f"5={masks / '00005.png'}"]
    assert list(own_video(arguments(video=video, mask=both), folder).masks) == ["00000", "00005"]
    some = own_video(arguments(video=video, mask=[str(masks)], start=2, every=2), folder)
    assert list(some.masks) == ["00002", "00004", "00006"] and len(some.frames) == 3
    with pytest.raises(UserError, match="without its frame"):
        own_video(arguments(video=video, mask=[f"90={masks / '00005.png'}"]), folder)
    with pytest.raises(UserError, match="--start 50"):
        own_video(arguments(video=video, mask=[str(masks)], start=50), folder)
    boxed = own_video(arguments(video=video, box=[[8, 6, 42, 42]], on=1), folder)
    assert boxed.masks == {"00001": folder / "frames/first_mask.png"}
    assert boxed.masks["00001"].is_file()


# --- directions ---


def test_both_directions_meet(folder, clip, propagator):
    truth = [labels for _, labels in clip]
    answers = {
        direction: [item.labels for item in label_frames(annotated(folder, 2, 6), propagator, direction)]
        for direction in ("forward", "backward", "both")
    }
    assert not answers["forward"][0].any() and not answers["backward"][7].any()
    for labels in answers.values():
        assert (labels[2] == truth[2]).all() and (labels[6] == truth[6]).all()
    assert min(jaccard(a, b) for a, b in zip(answers["both"], truth, strict=True)) > 0.75
    for t in (0, 1):
        assert (answers["both"][t] == answers["backward"][t]).all()
    assert (answers["both"][7] == answers["forward"][7]).all()
    between = {name: np.mean([jaccard(labels[t], truth[t]) for t in (3, 4, 5)]) for name, labels in answers.items()}
    assert between["both"] >= max(between["forward"], between["backward"]) - 0.01


def test_the_backward_pass_is_the_forward_pass_of_the_reversed_video(folder, clip, tmp_path, propagator):
    write_frames(tmp_path / "reversed", [frame for frame, _ in clip][::-1])
    there = AnnotatedVideo("r", FrameFolder(tmp_path / "reversed"), {"00000": folder / "masks/00007.png"})
    forward = [item.labels for item in label_frames(there, propagator)]
    backward = [item.labels for item in label_frames(annotated(folder, 7), propagator, "backward")]
    for a, b in zip(forward, reversed(backward), strict=True):
        assert (a == b).all()


def test_a_mask_beyond_the_end_is_an_error(folder, clip, tmp_path, propagator):
    with VideoWriter(tmp_path / "v.mp4", 10) as writer:
        for frame, _ in clip:
            writer.write(frame)
    with pytest.raises(UserError, match="without its frame"):
        AnnotatedVideo("v", VideoFile(tmp_path / "v.mp4"), {"00042": folder / "masks/00000.png"})


# --- reading ---


def test_sections_of_a_video_are_its_frames(tmp_path, clip):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        for i in range(40):
            writer.write(np.roll(clip[0][0], 2 * i, 1))
    video = VideoFile(tmp_path / "v.mp4")
    whole = list(video)
    for start, stop in ((0, 3), (7, 20), (33, 40), (39, 90)):
        part = list(video.section(start, stop))
        assert len(part) == min(stop, 40) - start
        assert all((a == b).all() for a, b in zip(part, whole[start:stop], strict=True))
    some = Selection(video, 5, 30, 4)
    assert len(some) == len(list(some)) == 7 and some.name(2) == "00013" and some.index("00013") == 2
    assert some.index("00014") is None and some.time(1) == Fraction(4, 25)
    assert all((a == b).all() for a, b in zip(some, whole[5:30:4], strict=True))
    assert (read_frame(some, 3) == whole[17]).all()


def test_a_camera_is_a_video_without_end(clip, folder, propagator, monkeypatch):
    class FakeCapture:
        def __init__(self, number):
            self.left = [frame for frame, _ in clip] * 3 if number == 1 else []

        def isOpened(self):  # noqa: N802  OpenCV's name
            return bool(self.left)

        def get(self, what):
            return 30.0

        def read(self):
            return (True, self.left.pop(0)[..., ::-1]) if self.left else (False, None)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(UserError, match="no camera"):
        open_frames("0")
    camera = Selection(open_frames("1"), 0, 5)
    assert (read_frame(camera, 0) == clip[0][0]).all(), "looked at, and not lost"
    video = AnnotatedVideo("camera", camera, {"00000": folder / "masks/00000.png"})
    items = list(label_frames(video, propagator, "both"))
    assert [item.number for item in items] == list(range(5)) and (items[0].frame == clip[0][0]).all()
    assert jaccard(items[4].labels, clip[4][1]) > 0.7
    with pytest.raises(UserError, match="camera"):
        Selection(open_frames("1"), 3)


# --- outputs ---


def with_sound(path, frames, codec="aac", rate=10, times=None, pix_fmt="yuv420p", video_codec="libx264"):
    """A video of uint8 RGB frames with a tone of the same length."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(video_codec, rate=rate)
        pictures.height, pictures.width, pictures.pix_fmt = *frames[0].shape[:2], pix_fmt
        tone = container.add_stream(codec, rate=48000)
        seconds = len(frames) / rate
        wave = np.sin(np.arange(int(48000 * seconds)) / 20).astype(np.float32)
        for t, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = (times[t] if times else t), Fraction(1, rate)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode())
        for start in range(0, len(wave), 1024):
            sound = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            sound.sample_rate, sound.pts, sound.time_base = 48000, start, Fraction(1, 48000)
            container.mux(tone.encode(sound))
        container.mux(tone.encode())


def about(path):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        stamps = sorted(float(p.pts * p.time_base) for p in container.demux(video) if p.pts is not None)
        seconds, audio = container.duration / 1e6, container.streams.audio
        container.seek(0)
        sound = [float((p.pts + (p.duration or 0)) * p.time_base) for p in container.demux(audio) if p.pts is not None]
        sound, stamps = max(sound, default=None), np.array(stamps) - stamps[0]
        return argparse.Namespace(size=(video.width, video.height), stamps=stamps, sound=sound, seconds=seconds)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_the_overlay_has_the_pace_size_and_sound_of_the_video(tmp_path, clip, codec):
    """Of a file with a variable frame rate; sound that mp4 cannot hold becomes AAC."""
    frames = [frame for frame, _ in clip]
    uneven = [0, 1, 2, 5, 6, 9, 10, 11]
    with_sound(tmp_path / "mine.mkv", frames, codec, times=uneven)
    write_mask(tmp_path / "mask.png", clip[0][1])
    command = ("demo.py", "--video", tmp_path / "mine.mkv", "--mask", tmp_path / "mask.png", "--arch", "lab")
    result = run_entry(*command, "--savepath", tmp_path, "--flow", "none", "--outputs", "overlay")
    assert result.returncode == 0, result.stderr
    source, made = about(tmp_path / "mine.mkv"), about(tmp_path / "demo/mine/overlay.mp4")
    assert made.size == source.size == (160, 96) and made.seconds == pytest.approx(source.seconds, abs=0.06)
    np.testing.assert_allclose(made.stamps, np.array(uneven) / 10, atol=1e-3)
    assert made.sound == pytest.approx(0.8, abs=0.06)
    assert not list((tmp_path / "demo/mine").glob("masks/*.png"))

    part = run_entry(*command, "--savepath", tmp_path / "part", "--flow", "none", "--start", 0, "--end", 4)
    assert part.returncode == 0, part.stderr
    made = about(tmp_path / "part/demo/mine/overlay.mp4")
    assert len(made.stamps) == 4 and made.sound <= made.seconds + 0.05


@pytest.mark.parametrize("name", ["mmaction2_test.avi", "sample-videos_again.mkv", "pllava_cooking.mp4"])
def test_overlays_of_files_as_they_are_found(tmp_path, real_data, name):
    """A real file of each container; the avi has MP3 sound, the mp4 AAC, the mkv none."""
    file = real_data / "clips" / name
    frames = list(VideoFile(file).section(0, 12))
    box = f"{frames[0].shape[1] // 3},{frames[0].shape[0] // 3},80,80"
    common = ("--savepath", tmp_path, "--arch", "lab", "--flow", "none", "--scale", "0.25", "--outputs", "overlay")
    result = run_entry("demo.py", "--video", file, "--box", box, "--end", len(frames), *common)
    assert result.returncode == 0, result.stderr
    source, made = about(file), about(tmp_path / "demo" / file.stem / "overlay.mp4")
    assert made.size == source.size
    np.testing.assert_allclose(made.stamps, source.stamps[: len(frames)], atol=2e-3)
    assert (made.sound is None) == (source.sound is None)
    assert made.sound is None or made.sound == pytest.approx(source.stamps[len(frames)], abs=0.06)
    written = next(iter(VideoFile(tmp_path / "demo" / file.stem / "overlay.mp4")))
    assert np.abs(written.astype(int) - frames[0])[:20].mean() < 12, "upright, and the same picture"


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv420p10le"), ("ffv1", "gray"), ("ffv1", "gray10le")])
def test_deep_and_grey_videos_come_out_right(tmp_path, clip, codec, pix_fmt):
    frames = [np.kron(frame, np.ones((2, 2, 1), np.uint8)) for frame, _ in clip]
    with_sound(tmp_path / "v.mkv", frames, pix_fmt=pix_fmt, video_codec=codec)
    read = list(VideoFile(tmp_path / "v.mkv"))
    assert len(read) == 8 and read[0].dtype == np.uint8 and read[0].shape == frames[0].shape
    expected = frames[3].astype(float)
    if "gray" in pix_fmt:
        expected = cv2.cvtColor(frames[3], cv2.COLOR_RGB2GRAY)[..., None].astype(float)
    assert np.abs(read[3] - expected).mean() < 12


def test_every_output_opens_in_its_tool(folder, clip):
    command = ("demo.py", "--video", folder / "frames", "--mask", folder / "masks/00000.png", "--arch", "lab")
    every = "masks,overlay,summary,cutouts,coco,csv"
    result = run_entry(*command, "--savepath", folder, "--flow", "none", "--outputs", every)
    assert result.returncode == 0, result.stderr
    made = folder / "demo/frames"
    masks = [np.array(Image.open(file)) for file in sorted((made / "masks").glob("*.png"))]

    coco = COCO(made / "coco.json")
    assert len(coco.imgs) == 8 and len(coco.cats) == 3
    for annotation in coco.anns.values():
        mask = masks[annotation["image_id"]] == annotation["category_id"]
        assert (coco.annToMask(annotation).astype(bool) == mask).all()
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == list(cv2.boundingRect(mask.astype(np.uint8)))

    table = pandas.read_csv(made / "objects.csv", dtype={"name": str})
    assert len(table) == 24 and table.confidence.between(0, 1).all()
    for row in table.itertuples():
        assert row.area == (masks[row.frame] == row.object).sum() and row.name == f"{row.frame:05d}"
        assert abs(row.centre_x - (masks[row.frame] == row.object).nonzero()[1].mean()) < 0.01
    assert (table[table.frame == 0].confidence == 1).all()

    cut = np.array(Image.open(made / "cutouts/2/00004.png"))
    assert cut.shape == (96, 160, 4) and ((cut[..., 3] == 255) == (masks[4] == 2)).all()
    assert (np.abs(cut[..., :3].astype(int) - read_frame(FrameFolder(folder / "frames"), 4)) == 0).all()


def test_max_size_works_small_and_writes_large(folder, clip):
    command = ("demo.py", "--video", folder / "frames", "--mask", folder / "masks/00000.png", "--arch", "lab")
    result = run_entry(*command, "--savepath", folder, "--flow", "none", "--max-size", 80)
    assert result.returncode == 0, result.stderr
    last = np.array(Image.open(folder / "demo/frames/masks/00007.png"))
    assert last.shape == (96, 160) and jaccard(last, clip[7][1]) > 0.6


def test_options_that_contradict_each_other_are_refused(folder):
    for options in (("--mask", "a.png", "--box", "1,2,3,4"), ("--box", "1,2,3"), ("--outputs", "gif"), ()):
        result = run_entry("demo.py", "--video", folder / "frames", *options)
        assert result.returncode == 2 and "Traceback" not in result.stderr, options


# --- confidence ---


def test_an_object_that_leaves_is_lost(propagator):
    """A square walks out of the picture; another one stays."""
    rng = np.random.default_rng(1)
    texture = cv2.GaussianBlur(rng.integers(80, 170, (96, 160, 3), np.uint8), (0, 0), 2)
    seen = []
    for t in range(12):
        frame, labels = texture.copy(), np.zeros((96, 160), np.uint8)
        frame[10:50, 20:60], labels[10:50, 20:60] = (220, 40, 40), 1
        left = 100 + 8 * t
        frame[40:80, left : left + 30], labels[40:80, left : left + 30] = (40, 60, 220), 2
        answer = propagator.step(frame, labels if t == 0 else None)
        seen.append((propagator.confidence(), (labels == 2).sum(), (answer == 2).sum()))
    assert seen[0][0] == {1: 1.0, 2: 1.0}
    assert seen[4][0][2] > 0.4
    assert seen[-1][1] == seen[-1][2] == 0 and seen[-1][0][2] == 0
    assert seen[-1][0][1] > 0.8


def test_probabilities_are_what_the_labels_are_the_argmax_of(clip, propagator):
    assert propagator.probabilities() is None and propagator.certainty() is None
    propagator.step(*clip[0])
    labels = propagator.step(clip[1][0])
    shares = propagator.probabilities()
    assert shares.shape == (4, 96, 160)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)
    assert (np.array(propagator.ids)[shares.argmax(0)] == labels).mean() > 0.999


def test_the_log_of_confidence_names_what_was_lost_and_what_to_mark():
    log = ConfidenceLog()
    for t in range(40):
        sure = 0.9 if t < 20 else 0.4 if t < 30 else 0.0
        log.add(f"{t:05d}", {1: 0.95, 2: 1.0 if t == 0 else sure}, t == 0)
    assert log.lost() == {2: [("00030", "00039")]}
    assert "00020" in log.worth_a_mask() and all("00020" <= name < "00030" for name in log.worth_a_mask())
    assert log.findings()[0] == "object 2 is lost in 00030 to 00039"
    calm = ConfidenceLog()
    for t in range(20):
        calm.add(str(t), {1: 0.9}, t == 0)
    assert calm.findings() == []
