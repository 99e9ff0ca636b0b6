"""The matching: golden numbers, the dense reference, and what its docstrings promise."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from functional import available_backends, local_correlation, propagate, propagate_labels, propagation, warp_rounded

BACKENDS = available_backends()
# Triton's interpreter takes a millisecond an operation: small sizes only, below, unless there is a GPU
LARGE = [name for name in BACKENDS if name != "triton"]


def naive(query, memory, values, radius, top_k, border, metric, temperature, locality):
    """One position and one candidate at a time, in float64."""
    batch, channels, height, width = query.shape
    out = torch.zeros(batch, values.shape[2], height, width, dtype=torch.float64)
    for b in range(batch):
        for y in range(height):
            for x in range(width):
                scores, held = [], []
                for m in range(memory.shape[1]):
                    for dy in range(-radius, radius + 1):
                        for dx in range(-radius, radius + 1):
                            inside = 0 <= y + dy < height and 0 <= x + dx < width
                            if not inside and border == "exclude":
                                continue
                            key = torch.zeros(channels)
                            value = torch.zeros(values.shape[2])
                            if inside:
                                key, value = memory[b, m, :, y + dy, x + dx], values[b, m, :, y + dy, x + dx]
                            q = query[b, :, y, x].double()
                            dot, l2 = q @ key.double(), -(q - key.double()).square().sum()
                            score = (dot if metric == "dot" else l2) / (temperature or channels**0.5)
                            scores.append(score - locality * (dy * dy + dx * dx))
                            held.append(value.double())
                scores, held = torch.stack(scores), torch.stack(held)
                if top_k is not None:
                    scores, index = scores.topk(min(top_k, len(scores)))
                    held = held[index]
                out[b, :, y, x] = scores.softmax(0) @ held
    return out


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("border", ["zero", "exclude"])
@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("top_k", [None, 5])
def test_equals_the_obvious_implementation(backend, border, metric, top_k):
    torch.manual_seed(0)
    query, memory = torch.randn(2, 3, 5, 11), torch.randn(2, 2, 3, 5, 11)
    values = torch.rand(2, 2, 4, 5, 11)
    variant = {"radius": 2, "top_k": top_k, "border": border, "metric": metric, "temperature": 0.7, "locality": 0.1}
    expected = naive(query, memory, values, **variant)
    torch.testing.assert_close(
        propagate(query, memory, values, backend=backend, **variant).double(), expected, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("backend", LARGE)
def test_golden_inference(golden, backend):
    numbers = {name: torch.from_numpy(value) for name, value in np.load(golden / "matching_inference.npz").items()}
    labels = numbers["labels"][:, 0, ::4, ::4].short()
    for flow, expected in ((None, "out_no_flow"), (numbers["flows"], "out_flow")):
        out = propagate_labels(
            numbers["query"][0], numbers["memory"], labels, 7, radius=12, top_k=36, flow=flow, backend=backend
        )
        torch.testing.assert_close(out, numbers[expected][0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", LARGE)
def test_golden_training(golden, backend):
    numbers = {name: torch.from_numpy(value) for name, value in np.load(golden / "matching_training.npz").items()}
    query, memory = numbers["query"].requires_grad_(), numbers["memory"].requires_grad_()
    colour = numbers["colour"][..., ::4, ::4].transpose(0, 1)
    out = propagate(query, memory.transpose(0, 1), colour, radius=6, backend=backend)
    torch.testing.assert_close(out, numbers["out"], atol=1e-4, rtol=0)
    fine = F.interpolate(out, scale_factor=4, mode="bilinear", align_corners=False)
    loss = F.smooth_l1_loss(20 * fine, 20 * numbers["target"])
    loss.backward()
    assert abs(loss.item() - numbers["loss"].item()) < 1e-4
    torch.testing.assert_close(query.grad, numbers["grad_query"], atol=1e-7, rtol=1e-3)
    torch.testing.assert_close(memory.grad, numbers["grad_memory"], atol=1e-7, rtol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_local_correlation(backend):
    torch.manual_seed(0)
    query = torch.randn(2, 4, 9, 13, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(2, 4, 9, 13, dtype=torch.float64, requires_grad=True)
    out = local_correlation(query, memory, 3, backend=backend)
    assert out.shape == (2, 49, 9, 13)
    dy, dx, y, x = -2, 3, 5, 6
    expected = query[1, :, y, x] @ memory[1, :, y + dy, x + dx]
    torch.testing.assert_close(out[1, (dy + 3) * 7 + dx + 3, y, x], expected)
    assert (out[:, 0, :3] == 0).all(), "above the frame"
    small = [t[:, :2, :3, :5].detach().requires_grad_() for t in (query, memory)]
    assert torch.autograd.gradcheck(lambda q, k: local_correlation(q, k, 2, backend=backend), small)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 20), width=st.integers(1, 35), frames=st.integers(1, 3), radius=st.integers(0, 5),
    top_k=st.sampled_from([None, 1, 7, 36]), border=st.sampled_from(["zero", "exclude"]),
    metric=st.sampled_from(["dot", "l2"]),
    locality=st.sampled_from([0.0, 0.03]),
    fine=st.sampled_from([1, 1, 2, 4]),
    moving=st.booleans(),
    coloured=st.booleans(),
    seed=st.integers(0, 1000), backend=st.sampled_from(LARGE),
)  # fmt: skip
def test_label_maps_give_what_one_hot_values_give(
    height, width, frames, radius, top_k, border, metric, locality, fine, moving, coloured, seed, backend
):
    """Positions that are certain are not computed; that must change nothing."""
    rng = torch.Generator().manual_seed(seed)
    query = torch.randn(6, height, width, generator=rng)
    memory = torch.randn(frames, 6, height, width, generator=rng)
    labels = torch.zeros(frames, fine * height, fine * width, dtype=torch.int16)
    labels[:, fine * height // 3 :, fine * width // 2 :] = 1
    labels[:, : fine * height // 4] = 2
    flow = torch.randint(-3, 4, (frames, 2, height, width), generator=rng).float() if moving else None
    matching = {"radius": radius, "top_k": top_k, "border": border, "metric": metric, "locality": locality}
    size = fine * height, fine * width
    own, seen = torch.randn(2, *size, generator=rng), torch.randn(frames, 2, *size, generator=rng)
    colours = (own, seen) if coloured else None
    out = propagate_labels(query, memory, labels, 3, flow=flow, colours=colours, backend=backend, **matching)
    assert out.shape == (3, *size)
    # Each place within the positions by itself
    for i, j in itertools.product(range(fine), repeat=2):
        keys, values, colours = memory, labels[:, i::fine, j::fine], seen[..., i::fine, j::fine]
        if moving:
            keys, colours = warp_rounded(memory, flow), warp_rounded(colours, flow)
            values = warp_rounded(values[:, None], flow, fill=-1)[:, 0]
        colours = (own[..., i::fine, j::fine], colours) if coloured else None
        reference = propagate_labels(query, keys, values, 3, colours=colours, backend="dense", **matching)
        torch.testing.assert_close(out[:, i::fine, j::fine], reference, atol=2e-5, rtol=1e-4)
        if not moving and not coloured:
            values = F.one_hot(values.long(), 3).permute(0, 3, 1, 2)[None].float()
            expected = propagate(query[None], keys[None], values, backend="dense", **matching)[0]
            torch.testing.assert_close(out[:, i::fine, j::fine], expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("border", ["zero", "exclude"])
def test_votes_of_another_colour_count_less(backend, border):
    """One place of one position at a time, in float64; the last difference of colour is above the limit."""
    rng = torch.Generator().manual_seed(3)
    query, memory = torch.randn(3, 4, 5, generator=rng), torch.randn(2, 3, 4, 5, generator=rng)
    labels = torch.randint(0, 3, (2, 8, 10), generator=rng).short()
    own, seen = torch.randn(2, 8, 10, generator=rng), torch.randn(2, 2, 8, 10, generator=rng)
    seen[1, :, 6:, 8:] += 9
    matching = {"radius": 1, "border": border, "temperature": 0.8, "locality": 0.1}
    out = propagate_labels(query, memory, labels, 3, top_k=5, colours=(own, seen), backend=backend, **matching)
    for y, x in itertools.product(range(8), range(10)):
        votes = []
        for m, dy, dx in itertools.product(range(2), (-1, 0, 1), (-1, 0, 1)):
            v, u = y + 2 * dy, x + 2 * dx
            if 0 <= v < 8 and 0 <= u < 10:
                score = query[:, y // 2, x // 2].double() @ memory[m, :, v // 2, u // 2].double() / 0.8
                difference = (own[:, y, x] - seen[m, :, v, u]).double().square().sum().clamp_max(16)
                votes.append((score - 0.1 * (dy * dy + dx * dx), difference, int(labels[m, v, u])))
            elif border == "zero":
                outside = torch.tensor(-0.1 * (dy * dy + dx * dx), dtype=torch.float64)
                votes.append((outside, own[:, y, x].double().square().sum().clamp_max(16), None))
        votes = sorted(votes, key=lambda vote: -vote[0])[:5]
        weights = torch.stack([score - difference for score, difference, _ in votes]).softmax(0)
        expected = [sum(w.item() for w, vote in zip(weights, votes, strict=True) if vote[2] == k) for k in range(3)]
        torch.testing.assert_close(out[:, y, x].cpu().double(), torch.tensor(expected).double(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_positions_without_label(backend):
    """What came from outside the frame has value 0, or no share at all."""
    query, memory = torch.ones(2, 4, 4), torch.ones(1, 2, 4, 4)
    labels = torch.full((1, 4, 4), -1, dtype=torch.int16)
    labels[0, 1, 1] = 1
    zero = propagate_labels(query, memory, labels, 2, radius=1, backend=backend)
    exclude = propagate_labels(query, memory, labels, 2, radius=1, border="exclude", backend=backend)
    own = math.exp(2 / math.sqrt(2))  # its score against the 0 of eight neighbours
    torch.testing.assert_close(zero[:, 1, 1], torch.tensor([0.0, own / (own + 8)]))
    torch.testing.assert_close(exclude[:, 1, 1], torch.tensor([0.0, 1.0]))
    assert (exclude[:, 3, 3] == 0).all(), "nothing in reach has a label"
    rng = torch.Generator().manual_seed(0)
    query, memory = torch.randn(2, 4, 4, generator=rng), torch.randn(1, 2, 4, 4, generator=rng)
    out = propagate_labels(query, memory, labels, 2, radius=1, top_k=5, backend=backend)
    blank = memory.masked_fill(labels[:, None] < 0, 0)
    expected = propagate_labels(query, blank, labels, 2, radius=1, top_k=5, backend="dense")
    torch.testing.assert_close(out, expected)


needs_triton = pytest.mark.skipif("triton" not in BACKENDS, reason="Triton is not installed on this machine")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("height", "width", "radius", "channels"), [(5, 7, 2, 3), (3, 35, 1, 16), (1, 4, 4, 2)])
def test_triton_correlation_and_gradients(dtype, height, width, radius, channels):
    torch.manual_seed(0)
    query, memory = torch.randn(2, 2, channels, height, width, device=DEVICE).to(dtype).unbind()
    grad = torch.randn(2, (2 * radius + 1) ** 2, height, width, device=DEVICE).to(dtype)
    answers = []
    for backend, kind in (("triton", dtype), ("dense", torch.float32)):
        inputs = [x.to(kind).requires_grad_() for x in (query, memory)]
        out = local_correlation(*inputs, radius, backend=backend)
        answers.append((out, *torch.autograd.grad(out, inputs, grad.to(kind))))
    off = 1e-5 if dtype == torch.float32 else 2e-2
    for got, expected in zip(*answers, strict=True):
        torch.testing.assert_close(got.float(), expected, atol=off * expected.abs().max().item(), rtol=off)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "radius", "top_k", "border", "metric"),
    [
        ((5, 6), 2, 7, "zero", "dot"), ((5, 6), 2, 7, "exclude", "l2"), ((4, 9), 3, 36, "exclude", "dot"),
        ((1, 5), 1, 3, "zero", "l2"), ((7, 3), 0, 2, "exclude", "dot"),
    ],
)  # fmt: skip
def test_triton_votes(dtype, shape, radius, top_k, border, metric):
    rng = torch.Generator().manual_seed(1)
    query, memory = (torch.randn(*n, 5, *shape, generator=rng).to(dtype) for n in ((), (2,)))
    labels = torch.randint(0, 3, (2, 2 * shape[0], 2 * shape[1]), generator=rng).short()
    flow = torch.randint(-2, 3, (2, 2, *shape), generator=rng).float()
    matching = {"radius": radius, "top_k": top_k, "border": border, "metric": metric, "locality": 0.05}
    args = [x.to(DEVICE) for x in (query, memory, labels)]
    colours = [torch.randn(*n, 3, *labels.shape[1:], generator=rng) for n in ((), (2,))]
    there = [x.to(DEVICE) for x in colours]
    got = propagate_labels(*args, 3, flow=flow.to(DEVICE), colours=there, backend="triton", **matching).cpu()
    exact = [x.float() for x in (query, memory)]
    expected = propagate_labels(*exact, labels, 3, flow=flow, colours=colours, backend="tiled", **matching)
    torch.testing.assert_close(got.float(), expected, atol=2e-5 if dtype == torch.float32 else 4e-3, rtol=1e-3)


@needs_triton
def test_triton_takes_the_first_of_equal_candidates():
    """All scores are equal: the k first candidates vote, no more and no fewer."""
    query, memory = torch.ones(2, 3, 3, device=DEVICE), torch.ones(1, 2, 3, 3, device=DEVICE)
    labels = torch.arange(9, dtype=torch.int16, device=DEVICE).view(1, 3, 3)
    out = propagate_labels(query, memory, labels, 9, radius=1, top_k=4, border="exclude", backend="triton").cpu()
    torch.testing.assert_close(out[:, 1, 1], torch.tensor([0.25] * 4 + [0.0] * 5))


def test_a_missing_triton_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(propagation, "triton_backend", None)
    propagation._best.cache_clear()
    assert [propagation._best("cuda", True) for _ in range(3)] == ["tiled"] * 3
    assert sum("Triton" in record.message for record in caplog.records) == 1
    propagation._best.cache_clear()


def test_wrong_arguments_are_named():
    query, memory, values = torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 2, 4, 4), torch.zeros(1, 1, 1, 4, 4)
    for wrong in ({"radius": -1}, {"top_k": 0}, {"border": "wrap"}, {"metric": "cosine"}, {"temperature": 0.0},
                  {"backend": "quantum"}):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(wrong))):
            propagate(query, memory, values, **({"radius": 1} | wrong))
    with pytest.raises(ValueError, match="does not fit"):
        propagate(query, memory[..., :3], values, radius=1)
