"""Streaming inference: the paper's masks, and what a caller may do."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from datasets.video import FrameFolder
from models import MAMP, PRESETS, MaskPropagator, YouTubeVOSMemory, propagate_video
from models.encoder import LabPatches
from models.optical_flow import DIS
from utils.errors import UserError
from utils.metrics import jaccard


@pytest.fixture(scope="module")
def lab():
    return MAMP("lab").eval()


class RecordedFlow:
    """The flows that the paper's code used."""

    def __init__(self, file):
        self.flows, self.t = np.load(file), 0

    def __call__(self, query, memories, gaps):
        self.t += 1
        return torch.from_numpy(np.stack([self.flows[f"{self.t}_{self.t - gap}"] for gap in gaps])).float()


def test_the_papers_masks_for_the_papers_checkpoint(golden):
    folder = golden / "end_to_end"
    model = MAMP.from_checkpoint(folder / "checkpoint.pt", "cpu")
    propagator = MaskPropagator(model, flow=RecordedFlow(folder / "flows.npz"), memory=5)
    first = np.array(Image.open(folder / "first_mask.png"))
    for t, labels in enumerate(propagate_video(propagator, FrameFolder(folder / "frames"), {0: first})):
        expected = np.array(Image.open(folder / f"masks/{t:05d}.png"))
        assert (labels == expected).mean() >= 0.999, f"frame {t}"


@pytest.mark.parametrize("sequence", ["dog", "bmx-trees"])
def test_backends_give_the_same_masks_on_a_real_sequence(real_data, lab, sequence):
    frames = list(FrameFolder(real_data / f"davis/JPEGImages/480p/{sequence}"))[:4]
    first = np.array(Image.open(real_data / f"davis/Annotations/480p/{sequence}/00000.png"))
    made = {}
    for backend in ("dense", "tiled", "compiled"):
        propagator = MaskPropagator(lab, **PRESETS["fast"], backend=backend)
        made[backend] = np.stack(list(propagate_video(propagator, frames, {0: (first > 0).astype(np.uint8)})))
    for backend in ("tiled", "compiled"):
        assert (made["dense"] == made[backend]).mean() >= 0.9999, backend


@pytest.mark.parametrize(("scale", "least"), [(1.0, 0.8), (0.5, 0.6), (0.7, 0.6)])
def test_objects_are_followed(lab, clip, scale, least):
    frames, truth = (
        np.stack([np.kron(x, np.ones((2, 2, 1)[: x.ndim], np.uint8)) for x in part]) for part in zip(*clip, strict=True)
    )
    masks = list(propagate_video(MaskPropagator(lab, scale=scale), frames, {0: truth[0]}))
    assert all(mask.shape == truth[0].shape and mask.dtype == np.uint8 for mask in masks)
    for i in (1, 2, 3):
        assert jaccard(truth[-1] == i, masks[-1] == i) > least


def test_object_numbers_are_kept_whatever_they_are(lab, clip):
    renamed = np.array([0, 255, 7, 100], np.uint8)
    plain = list(propagate_video(MaskPropagator(lab), [f for f, _ in clip], {0: clip[0][1]}))
    other = list(propagate_video(MaskPropagator(lab), [f for f, _ in clip], {0: renamed[clip[0][1]]}))
    assert set(np.unique(other[-1])) == {0, 7, 100, 255}
    assert np.mean([(renamed[a] == b).mean() for a, b in zip(plain, other, strict=True)]) > 0.999


@pytest.mark.parametrize("memory", [5, YouTubeVOSMemory(4)])
def test_an_object_may_come_later(lab, clip, memory):
    frames = [
        np.where((labels == 2)[..., None] & (t < 3), 120, f).astype(np.uint8) for t, (f, labels) in enumerate(clip)
    ]
    first, later = clip[0][1].copy(), np.zeros_like(clip[0][1])
    first[first == 2] = 0
    later[clip[3][1] == 2] = 2
    masks = list(propagate_video(MaskPropagator(lab, memory=memory), frames, {0: first, 3: later}))
    assert not (masks[2] == 2).any()
    assert ((masks[3] == 2) == (clip[3][1] == 2)).all(), "painted over the prediction"
    assert jaccard(clip[7][1] == 2, masks[7] == 2) > 0.7, "and remembered"


def test_frames_before_the_first_labels_are_background(lab, clip):
    late = list(propagate_video(MaskPropagator(lab), [f for f, _ in clip], {2: clip[2][1]}))
    assert not late[0].any() and not late[1].any()
    fresh = list(propagate_video(MaskPropagator(lab), [f for f, _ in clip[2:]], {0: clip[2][1]}))
    assert all((a == b).all() for a, b in zip(late[2:], fresh, strict=True))


def test_a_propagator_can_be_used_again_and_is_deterministic(lab, clip):
    propagator = MaskPropagator(lab)
    runs = [list(propagate_video(propagator, [f for f, _ in clip], {0: clip[0][1]})) for _ in range(2)]
    assert all((a == b).all() for a, b in zip(*runs, strict=True))


def test_features_are_computed_once_a_frame(lab, clip, monkeypatch):
    calls, forward = [], LabPatches.forward
    monkeypatch.setattr(LabPatches, "forward", lambda self, x: calls.append(1) or forward(self, x))
    list(propagate_video(MaskPropagator(lab), [f for f, _ in clip], {0: clip[0][1]}))
    assert len(calls) == len(clip)


def test_odd_sizes(lab):
    rng = np.random.default_rng(0)
    for height, width, scale in (
        (1, 1, 1.0),
        (3, 50, 1.0),
        (37, 41, 1.0),
        (37, 41, 0.5),
        (12, 854, 0.75),
        (37, 41, 0.3),
    ):
        frames = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(3)]
        labels = np.ones((height, width), np.uint8)
        for detail in (1, 2):
            propagator = MaskPropagator(lab, pad_divisible=16, scale=scale, label_detail=detail)
            masks = list(propagate_video(propagator, frames, {0: labels}))
            assert all(mask.shape == (height, width) for mask in masks)
            assert propagator.probabilities().shape[1:] == (height, width)


def test_a_scale_that_leaves_nothing_is_refused(lab):
    with pytest.raises(UserError, match="--scale 0.3: nothing is left of 50x1 pixels"):
        MaskPropagator(lab, scale=0.3).step(np.zeros((1, 50, 3), np.uint8), np.ones((1, 50), np.uint8))


def test_wrong_input_is_refused(lab, clip):
    frame, labels = clip[0]
    for wrong in ((frame.astype(float), labels), (frame, labels[1:]), (frame, labels.astype(int)), (labels, labels)):
        with pytest.raises(ValueError, match="uint8"):
            MaskPropagator(lab).step(*wrong)
    propagator = MaskPropagator(lab)
    propagator.step(frame, labels)
    with pytest.raises(ValueError, match="reset"):
        propagator.step(frame[:-8])


def test_looking_ahead_changes_nothing_and_computes_no_flow_twice(clip):
    """Also where a mask is given on the way, which changes what the next frame reads."""

    class Counting:
        def __init__(self):
            self.pairs, self.dis = [], DIS()

        def __call__(self, query, memories, gaps):
            self.pairs += [(query.tobytes(), memory.tobytes()) for memory in memories]
            return self.dis(query, memories, gaps)

    frames, given = [frame for frame, _ in clip], {0: clip[0][1], 4: clip[4][1]}
    answers, pairs = [], []
    for ahead in (False, True):
        flow = Counting()
        propagator = MaskPropagator(MAMP("lab").eval(), **PRESETS["default"] | {"flow": flow})
        if ahead:
            answers.append(list(propagate_video(propagator, frames, given)))
        else:
            answers.append([propagator.step(frame, given.get(t)) for t, frame in enumerate(frames)])
        pairs.append(flow.pairs)
    assert all((a == b).all() for a, b in zip(*answers, strict=True))
    assert pairs[0] == pairs[1] and len(set(pairs[1])) == len(pairs[1])


def test_a_later_mask_is_all_there_is_of_its_objects(clip):
    """What was predicted of an object elsewhere goes; the other objects stay."""
    propagator = MaskPropagator(MAMP("lab").eval(), flow="none", border="exclude")
    propagator.step(*clip[0])
    smaller = np.where(clip[1][1] == 2, 2, 0).astype(np.uint8)
    smaller[:70] = 0
    answer = propagator.step(clip[1][0], smaller)
    assert ((answer == 2) == (smaller == 2)).all() and {1, 3} <= set(np.unique(answer))
    assert propagator.confidence()[2] == 1
    propagator.step(clip[2][0])
    assert sorted(propagator.bank.read(2)) == [0, 1], "predictions from before the correction are not read"


def test_a_compiled_encoder_gives_the_same_masks(clip, monkeypatch):
    """Through torch.compile, but without the C++ compiler that its default backend needs on a CPU."""
    compiled = []

    def compile_eagerly(module, real=torch.compile):
        compiled.append(module)
        return real(module, backend="eager")

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    frames, made = [frame for frame, _ in clip], []
    for wanted in (False, True):
        propagator = MaskPropagator(MAMP("lab").eval(), flow="none", compiled=wanted)
        made.append(list(propagate_video(propagator, frames, {0: clip[0][1]})))
    assert len(compiled) == 1
    assert all((a == b).all() for a, b in zip(*made, strict=True))


def test_the_backgrounds_weight_changes_the_odds(clip):
    odds = {}
    for background in (1.0, 0.5):
        propagator = MaskPropagator(MAMP("lab").eval(), flow="none", border="exclude", background=background)
        propagator.step(*clip[0])
        propagator.step(clip[1][0])
        shares = propagator._shares
        torch.testing.assert_close(shares.sum(0), torch.ones_like(shares[0]))
        odds[background] = shares[1:] / shares[0]
    open_ = (odds[1.0] > 1e-3) & (odds[1.0] < 1e3)
    assert open_.sum() > 20
    torch.testing.assert_close(odds[0.5][open_], 2 * odds[1.0][open_], rtol=1e-3, atol=0)


def test_colour_settles_edges_within_a_position(lab):
    """A square that moves by two pixels a frame, which is half a position."""
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(60, 120, (12, 20, 3), dtype=np.uint8), (160, 96))
    clip = []
    for t in range(6):
        frame, mask = ground.copy(), np.zeros((96, 160), np.uint8)
        mask[30:62, 20 + 2 * t : 52 + 2 * t] = 1
        frame[mask > 0] = (200, 150, 40)
        clip.append((frame, mask))
    found = {}
    for colour in (0, 0.3):
        propagator = MaskPropagator(lab, flow="none", border="exclude", label_detail=2, colour=colour)
        masks = list(propagate_video(propagator, [frame for frame, _ in clip], {0: clip[0][1]}))
        found[colour] = jaccard(masks[-1] > 0, clip[-1][1] > 0)
    assert found[0.3] > 0.98 and found[0] < 0.95


def test_specks_are_dropped_unless_the_mask_was_given_with_them(lab, clip, monkeypatch):
    frame = clip[0][0]
    mask = np.zeros(frame.shape[:2], np.uint8)
    mask[8:40, 8:40] = mask[60:68, 100:108] = 1

    def far_piece(specks):
        propagator = MaskPropagator(lab, flow="none", border="exclude", locality=0.5, specks=specks)
        propagator.step(frame, mask)
        return (propagator.step(frame)[60:68, 100:108] == 1).mean()

    assert far_piece(0.1) > 0.5, "it was given"
    monkeypatch.setattr("models.propagator.scattered_labels", lambda labels, smallest: set())
    assert far_piece(0.1) == 0
    assert far_piece(0) > 0.5


@pytest.mark.parametrize("detail", [2, 4])
def test_finer_labels_keep_what_is_narrower_than_a_position(lab, clip, detail):
    """A stripe two pixels wide on a still picture: nothing moves, so nothing may be lost."""
    frame, stripe = clip[0][0], np.zeros(clip[0][0].shape[:2], np.uint8)
    stripe[:, 78:80] = 1
    lost = {}
    for labels in (1, detail):
        propagator = MaskPropagator(lab, flow="none", border="exclude", locality=0.5, label_detail=labels)
        propagator.step(frame, stripe)
        lost[labels] = 1 - jaccard(propagator.step(frame) > 0, stripe > 0)
    assert lost[detail] < lost[1] and lost[detail] < 0.7
    with pytest.raises(ValueError, match="label_detail"):
        MaskPropagator(lab, label_detail=3)
