"""Files: video, frames, masks, unlabelled clips, the synthetic video."""

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from conftest import write_frames
from PIL import Image

from datasets.annotated import without_void
from datasets.correspondence import matches
from datasets.davis import Davis
from datasets.synthetic import SyntheticVideo
from datasets.unlabeled import EpochSampler, FrameTuples, find_clips
from datasets.video import FrameFolder, VideoFile, open_frames, read_image
from datasets.video_writer import VideoWriter
from datasets.youtube_vos import YouTubeVOS
from utils.errors import UserError
from utils.masks import PALETTE, read_mask, write_mask


def write_video(path, frames, fps=12):
    with VideoWriter(path, fps) as writer:
        for frame in frames:
            writer.write(frame)


def test_video_round_trip(tmp_path, clip):
    write_video(tmp_path / "a.mp4", [frame[:95, :159] for frame, _ in clip], Fraction(24000, 1001))
    video = open_frames(tmp_path / "a.mp4")
    frames = list(video)
    assert len(frames) == len(video) == len(clip) and video.fps == Fraction(24000, 1001)
    assert frames[0].shape == (94, 158, 3), "odd sizes lose a row and a column"
    assert np.abs(frames[3].astype(int) - clip[3][0][:94, :158]).mean() < 12
    with av.open(str(tmp_path / "a.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")


def test_a_video_that_fails_half_way_is_not_there(tmp_path, clip):
    with pytest.raises(ZeroDivisionError), VideoWriter(tmp_path / "a.mp4", 12) as writer:
        writer.write(clip[0][0])
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_unreadable_input_is_named(tmp_path, clip):
    write_video(tmp_path / "good.mp4", [frame for frame, _ in clip])
    (tmp_path / "broken.mp4").write_bytes((tmp_path / "good.mp4").read_bytes()[:200])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    jpeg = cv2.imencode(".jpg", clip[0][0])[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "none.jpg").write_bytes(b"")
    for reading in (lambda p: list(open_frames(p)), read_image):
        with pytest.raises(UserError, match="nowhere"):
            reading(tmp_path / "nowhere")
    for name in ("broken.mp4", "text.mp4", "empty"):
        with pytest.raises(UserError, match=name):
            list(open_frames(tmp_path / name))
    with pytest.raises(UserError, match=r"cut\.jpg: truncated JPEG"):
        read_image(tmp_path / "cut.jpg")
    with pytest.raises(UserError, match=r"none\.jpg: not a readable image"):
        read_image(tmp_path / "none.jpg")


def test_real_clips_decode(real_data):
    """One of every container there."""
    seen = {}
    for file in sorted((real_data / "clips").glob("*.*")):
        if file.suffix in (".mp4", ".mkv", ".avi"):
            seen.setdefault(file.suffix, file)
    for file in seen.values():
        frame = next(iter(VideoFile(file)))
        assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.std() > 5
    assert len(seen) == 3


def test_masks_round_trip_in_the_official_palette(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_mask(tmp_path / "a.png", labels)
    assert (read_mask(tmp_path / "a.png", (16, 16)) == labels).all()
    assert Image.open(tmp_path / "a.png").mode == "P"
    assert PALETTE[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_masks_that_cannot_be_used_are_named(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    Image.fromarray(np.full((8, 8), 300, np.uint16)).save(tmp_path / "many.png")
    write_mask(tmp_path / "good.png", np.ones((8, 8), np.uint8))
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    for name, message in {"rgb": "indexed", "many": "at most 255", "cut": "not a readable", "no": "no such"}.items():
        with pytest.raises(UserError, match=message) as caught:
            read_mask(tmp_path / f"{name}.png")
        assert f"{name}.png" in str(caught.value)
    with pytest.raises(UserError, match="8x8 but its frame is 9x8"):
        read_mask(tmp_path / "good.png", (8, 9))


def test_void_and_binary_masks():
    assert without_void(np.array([[0, 255]], np.uint8)).tolist() == [[0, 1]]
    assert without_void(np.array([[0, 255, 2]], np.uint8)).tolist() == [[0, 0, 2]]


def test_davis_folder(davis_folder):
    davis = Davis(davis_folder, 2017)
    assert davis.names == ["one", "two"] and davis.objects("one") == 3
    assert len(davis.scored_frames("one")) == 6
    with pytest.raises(UserError, match="no sequence three; it has one, two"):
        Davis(davis_folder, 2017, sequences=["three"])
    with pytest.raises(UserError, match=r"2016/val\.txt.*ImageSets/2017/val\.txt"):
        Davis(davis_folder, 2016)


def test_real_youtube_vos(real_data):
    videos = YouTubeVOS(real_data / "ytvos").videos()
    assert len(videos) == 2
    assert all(len(video.frames) >= len(video.wanted) > 10 for video in videos)


def test_the_synthetic_video_is_deterministic_and_its_masks_exact():
    video = SyntheticVideo(width=214, height=120)
    for t in (0, 30, 59):
        frame, labels = video.render(t)
        assert frame.shape == (120, 214, 3) and set(np.unique(labels)) == {0, 1, 2, 3}
        assert (video.render(t)[0] == frame).all()
    moved = np.argwhere(video.render(59)[1] == 1).mean(0) - np.argwhere(video.render(0)[1] == 1).mean(0)
    assert np.abs(moved).max() > 40


def tuples(clips, **changes):
    options = {"ref_num": 2, "size": 32, "intervals": [2, 5], "probabilities": [1, 1], "augmentation": "crop"}
    return FrameTuples(clips, **(options | changes))


def test_clips_are_found_and_videos_decoded_once(tmp_path, clip):
    frames = [frame for frame, _ in clip]
    write_frames(tmp_path / "data/folder", frames)
    write_video(tmp_path / "data/video.mp4", frames)
    (tmp_path / "data/broken.mp4").write_text("no video")
    clips = find_clips([tmp_path / "data"], tmp_path / "cache", short_side=48)
    assert [len(files) for files in clips] == [8, 8]
    assert read_image(clips[1][0]).shape == (48, 80, 3)
    written = clips[1][0].stat().st_mtime_ns
    assert find_clips([tmp_path / "data"], tmp_path / "cache", short_side=48) == clips
    assert clips[1][0].stat().st_mtime_ns == written
    (tmp_path / "none").mkdir()
    for wrong in ("nowhere", "none"):
        with pytest.raises(UserError, match=wrong):
            find_clips([tmp_path / wrong], tmp_path / "cache")


@pytest.mark.parametrize("augmentation", ["crop", "squash"])
def test_samples(tmp_path, clip, augmentation):
    write_frames(tmp_path / "a", [frame for frame, _ in clip])
    data = tuples(find_clips([tmp_path], tmp_path), augmentation=augmentation)
    assert len(data) == 8
    for i in range(8):
        sample = data[0, i]
        assert sample.shape == (3, 3, 32, 32) and sample.abs().max() <= 1.1
        assert (data[0, i] == sample).all(), "the same sample whenever it is asked for"
    assert any((data[1, i] != data[0, i]).any() for i in range(8)), "others in another epoch"
    with pytest.raises(UserError, match="--ref_num 8"):
        tuples(find_clips([tmp_path], tmp_path), ref_num=8)


def test_the_sampler_goes_on_where_it_stopped_and_shares_out():
    one = EpochSampler(23, seed=1, batch=4)
    one.seek(3)
    whole = list(one)
    assert len(whole) == len(one) == 20 and len(set(whole)) == 20
    one.seek(3, 8)
    assert list(one) == whole[8:]
    parts = [EpochSampler(23, 1, 4, rank, 2) for rank in range(2)]
    for part in parts:
        part.seek(3)
    for step in range(5):
        shared = [list(part)[2 * step : 2 * step + 2] for part in parts]
        assert sorted(sum(shared, [])) == sorted(whole[4 * step : 4 * step + 4])


def test_frames_of_a_folder_are_in_order(tmp_path, clip):
    write_frames(tmp_path / "a", [frame for frame, _ in clip])
    folder = FrameFolder(tmp_path / "a")
    assert [folder.name(t) for t in range(8)] == [f"{t:05d}" for t in range(8)] and len(list(folder)) == 8


def test_matches_follow_what_moves_and_leave_out_what_left():
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.normal(0, 1, (96, 104, 3)), (0, 0), 4)
    texture = (127 + 60 * noise / noise.std()).clip(0, 255).astype(np.uint8)
    query, memory = texture[:, :96], texture[:, 8:]  # what stands at x in the query is at x - 8 in the memory
    found = matches(np.ascontiguousarray(query), np.ascontiguousarray(memory)).reshape(24, 24)
    assert (found[:, :2] == -1).mean() > 0.9
    expected = np.arange(24)[:, None] * 24 + np.arange(24) - 2
    assert (found[2:-2, 4:-2] == expected[2:-2, 4:-2]).mean() > 0.9
