"""Encoders, checkpoints, memory rules and optical flow."""

import cv2
import numpy as np
import pytest
import torch
import torch.nn as nn

from datasets.transforms import to_lab
from models import MAMP, DavisMemory, YouTubeVOSMemory
from models.carried_flow import CarriedFlow
from models.encoder import ENCODERS, for_inference
from models.memory_bank import MemoryBank, Remembered
from models.optical_flow import flow_estimator
from utils import checkpoint
from utils.errors import UserError


@pytest.mark.parametrize("arch", ENCODERS)
def test_encoders_keep_the_contract(arch):
    model = MAMP(arch).eval()
    with torch.inference_mode():
        features = model.encode(torch.randn(2, 3, 36, 52))
    assert features.shape == (2, model.encoder.channels, 9, 13)


@pytest.mark.parametrize("arch", ["resnet18", "light"])
def test_the_encoder_for_inference_computes_the_same(arch):
    torch.manual_seed(0)
    model = MAMP(arch)
    lab = torch.randn(2, 3, 32, 48)
    model.encode(lab)  # moves the running statistics away from 0 and 1
    model.eval()
    fast = for_inference(model.encoder)
    with torch.inference_mode():
        torch.testing.assert_close(fast(lab), model.encode(lab), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert any(isinstance(m, nn.BatchNorm2d) for m in model.modules()), "the model itself is left as it is"


def test_light_is_light():
    work = []
    encoder = ENCODERS["light"]().eval()
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda m, _, out: work.append(m.weight.numel() * out[0, 0].numel()))
    with torch.inference_mode():
        encoder(torch.zeros(1, 3, 480, 856))
    assert sum(work) < 15e9


def test_lab_features_are_pooled_colours():
    lab = torch.randn(1, 3, 24, 24)
    features = MAMP("lab").encode(lab)
    centre = features.view(3, 9, 6, 6)[:, 4]
    torch.testing.assert_close(centre[:, 2, 3], 6 * lab[0, :, 8:12, 12:16].mean((1, 2)))


def test_to_lab():
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0] = 255
    lab = to_lab(frame)
    assert lab.shape == (3, 2, 2)
    np.testing.assert_allclose(lab[:, 0, 0], [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(lab[:, 1, 1], [-1, 0, 0], atol=1e-4)


def test_three_key_styles_and_safetensors_give_the_same_model(tmp_path):
    torch.manual_seed(0)
    model = MAMP("resnet18").eval()
    ours = model.state_dict()
    paper = {}
    for name, value in ours.items():
        name = name.replace("encoder.projection.", "post_convolution.").replace(".body.", ".left.")
        paper[name.replace("encoder.stem.", "encoder.conv1.").replace("encoder.", "feature_extraction.")] = value
    torch.save(ours, tmp_path / "ours.pt")
    torch.save({"state_dict": ours, "arch": "resnet18", "step": 3}, tmp_path / "training.pth")
    torch.save({"state_dict": {f"module.{k}": v for k, v in paper.items()}}, tmp_path / "paper.pt")
    checkpoint.save_weights(tmp_path / "half.safetensors", ours, "resnet18")
    lab = torch.randn(1, 3, 32, 32)
    for file in ("ours.pt", "training.pth", "paper.pt", "half.safetensors"):
        loaded = MAMP.from_checkpoint(tmp_path / file, "cpu")
        assert loaded.arch == "resnet18" and not loaded.training
        tolerance = 1e-2 if "half" in file else 0
        torch.testing.assert_close(loaded.encode(lab), model.encode(lab), atol=tolerance, rtol=tolerance)


def test_the_shipped_checkpoint_loads():
    from engine.inference import DEFAULT_CHECKPOINT

    assert MAMP.from_checkpoint(DEFAULT_CHECKPOINT, "cpu").arch == "light"


def test_golden_checkpoint_loads(golden):
    assert MAMP.from_checkpoint(golden / "end_to_end/checkpoint.pt", "cpu").arch == "resnet18"


class _Code:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_wrong_checkpoints_are_named(tmp_path, capsys):
    light = MAMP("light").state_dict()
    del light["encoder.stem.0.weight"]
    light["encoder.extra"] = torch.zeros(1)
    cases = {
        "missing.pt": (None, "no such checkpoint"),
        "text.pt": (b"hello", "not a readable checkpoint"),
        "text.safetensors": (b"hello", "not a readable checkpoint"),
        "code.pt": (_Code(), "weights_only"),
        "list.pt": ([1, 2], "no weights"),
        "keys.pt": (light, "missing: encoder.stem.0.weight; unknown: encoder.extra"),
    }
    for name, (content, message) in cases.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match=message) as caught:
            MAMP.from_checkpoint(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert "must not run" not in capsys.readouterr().out


def test_interrupted_writing_keeps_the_old_file(tmp_path):
    file = tmp_path / "last.pt"
    file.write_text("old")
    with pytest.raises(RuntimeError), checkpoint.replacing(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("length", "t", "expected"),
    [
        (5, 1, [0]), (5, 2, [0, 1]), (5, 5, [0, 2, 4]), (5, 6, [0, 1, 3, 5]), (5, 20, [0, 5, 15, 17, 19]),
        (4, 20, [0, 15, 17, 19]), (2, 1, [0]), (2, 9, [0, 7]), (1, 9, [8]), (0, 9, [0]),
    ],
)  # fmt: skip
def test_davis_memory(length, t, expected):
    assert DavisMemory(length).reads(t, [0]) == expected


@pytest.mark.parametrize(
    ("t", "annotated", "expected"),
    [(1, [0], [0]), (9, [0], [0, 4, 6, 8]), (9, [0, 3], [0, 3, 6, 8]), (9, [0, 2, 3, 4, 5], [0, 2, 3, 4, 5])],
)
def test_youtube_vos_memory(t, annotated, expected):
    assert YouTubeVOSMemory(4).reads(t, annotated) == expected


@pytest.mark.parametrize("rule", [*map(DavisMemory, (0, 1, 2, 4, 5)), YouTubeVOSMemory(4)])
def test_the_memory_is_constant_and_has_what_is_read(rule):
    bank, sizes = MemoryBank(rule), []
    for t in range(60):
        if t:
            assert set(bank.read(t)) == set(rule.reads(t, [0]))
        bank.add(t, Remembered(torch.zeros(1), torch.zeros(1), np.zeros(1)), annotated=t == 0)
        sizes.append(len(bank))
    assert max(sizes[12:]) <= 9 and sizes[-1] == sizes[-3]


def test_dis_flow_finds_a_shift(clip):
    query = np.kron(clip[0][0], np.ones((3, 3, 1), np.uint8))
    memory = np.roll(query, (8, 12), (0, 1))
    flow = flow_estimator("dis")(query, [memory, query], [1, 2])
    assert flow.shape == (2, 2, 72, 120) and flow.dtype == torch.float32
    inner = flow[:, :, 16:-16, 16:-16]
    assert abs(inner[0, 0].median() - 3) < 0.2 and abs(inner[0, 1].median() - 2) < 0.2
    assert inner[1].abs().median() < 0.1


@pytest.mark.parametrize("size", ["raft_small", "raft_large"])
def test_raft_runs_from_a_local_file(tmp_path, clip, size):
    from torchvision.models import optical_flow

    torch.manual_seed(0)
    network = getattr(optical_flow, size)(weights=None)
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    estimate = flow_estimator(size, weights=tmp_path / "raft.pth")
    flow = estimate(clip[0][0], [clip[1][0], clip[2][0]], [1, 20])
    assert flow.shape == (2, 2, 24, 40) and flow.isfinite().all()
    torch.testing.assert_close(flow[1:], estimate(clip[0][0], [clip[2][0]], [20]), atol=1e-3, rtol=1e-3)
    with pytest.raises(UserError, match="not the weights"):
        torch.save({"a": torch.zeros(1)}, tmp_path / "other.pth")
        flow_estimator(size, weights=tmp_path / "other.pth")


def test_flow_is_carried_across_gaps_that_are_too_long_to_estimate():
    """A pattern moves a position a frame; the estimator sees only neighbours, and nothing across more."""
    pattern = cv2.resize(np.random.default_rng(0).integers(0, 255, (20, 60, 3), np.uint8), (480, 160))
    frames = [pattern[:, 240 - 4 * t : 400 - 4 * t] for t in range(12)]
    calls = []

    def estimate(query, memories, gaps):
        calls.append(gaps)
        flow = torch.zeros(len(memories), 2, 40, 40)
        flow[[gap == 1 for gap in gaps], 0] = -1.0
        return flow

    carried, rule = CarriedFlow(estimate), DavisMemory()
    for t in range(1, 12):
        read = {m: frames[m] for m in rule.reads(t, [0])}
        flow = carried(frames[t], read, t)
        again = carried(frames[t], read, t)
        assert flow.shape == (len(read), 2, 40, 40) and flow.dtype == torch.float32
        for m, found in zip(read, flow, strict=True):
            seen = found[:, 4:-4, 4 + t : -4]  # what was inside the frame all along
            assert (seen[0] - (m - t)).abs().max() < 1e-3 and seen[1].abs().max() < 1e-3, (t, m)
        torch.testing.assert_close(flow, again)
    assert len(carried._carried[11]) <= 11


def test_of_direct_and_carried_flow_the_one_that_looks_right_is_taken():
    """Here the estimator is right across any gap, but not from frame to frame."""
    pattern = cv2.resize(np.random.default_rng(0).integers(0, 255, (20, 60, 3), np.uint8), (480, 160))
    frames = [pattern[:, 240 - 4 * t : 400 - 4 * t] for t in range(6)]
    carried = CarriedFlow(lambda query, memories, gaps: torch.stack([torch.zeros(2, 40, 40) + (gap == 1) * 3.0
                          - torch.tensor([gap, 0.0])[:, None, None] for gap in gaps]))  # fmt: skip
    for t in range(1, 6):
        flow = carried(frames[t], {m: frames[m] for m in DavisMemory().reads(t, [0])}, t)
    assert (flow[0, 0, 8:-8, 10:-8] + 5).abs().max() < 1e-3
