"""Training: it learns, it resumes exactly, two processes are one, and nothing is lost on the way."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from conftest import ROOT, run_entry, write_frames

import main_train
from datasets.transforms import to_lab
from engine.adaptation import adapt
from engine.objective import colour_loss, flow_loss, reconstruct
from engine.training import Trainer, learning_rate
from models import MAMP
from utils import checkpoint
from utils.distributed import Processes
from utils.errors import UserError


@pytest.fixture
def arguments(tmp_path, clip):
    """Options of a small run, and how to change them."""
    for name in ("a", "b", "c"):
        write_frames(tmp_path / "data" / name, [frame for frame, _ in clip])
    fixed = f"--datapath {tmp_path / 'data'} --cache {tmp_path / 'cache'} --savepath {tmp_path} --arch light "
    fixed += "--img_size 32 --bsize 4 --ref_num 1 --intervals 1,2 --interval_probs 1,1 --augmentation crop --worker 0 "
    fixed += "--schedule cosine --warmup 2 --ema 0.9 --device cpu --log_every 5"
    return lambda more="": [*fixed.split(), *more.split()]


def trainer(argv) -> Trainer:
    return Trainer(main_train.parse(argv), Processes(0, 1, torch.device("cpu")))


def test_it_learns(arguments):
    run = trainer(arguments("--steps 30 --lr 3e-3"))
    run.model.eval()
    frames = torch.stack([run.data[0, i] for i in range(16)])
    with torch.no_grad():
        before = colour_loss(reconstruct(run.model, frames, 1)[0], frames, 1)
    run.run()
    run.model.eval()
    with torch.no_grad():
        after = colour_loss(reconstruct(run.model, frames, 1)[0], frames, 1)
    assert after < 0.8 * before


def test_a_resumed_run_equals_an_unbroken_one(arguments, monkeypatch):
    whole = trainer(arguments("--steps 9 --proc_name whole"))
    whole.run()
    broken = trainer(arguments("--steps 9 --proc_name broken --save_every 4"))
    healthy = broken.train_step

    def dies_after_six_steps(*sample):
        if broken.step == 6:
            raise RuntimeError
        return healthy(*sample)

    monkeypatch.setattr(broken, "train_step", dies_after_six_steps)
    with pytest.raises(RuntimeError):
        broken.run()
    torch.manual_seed(99)
    resumed = trainer(arguments(f"--steps 9 --proc_name broken --resume {broken.folder / 'last.pt'}"))
    assert resumed.step == 4
    resumed.run()
    for (name, a), b in zip(whole.state()["state_dict"].items(), resumed.state()["state_dict"].values(), strict=True):
        assert torch.equal(a, b), name
    for a, b in zip(whole.weights().values(), resumed.weights().values(), strict=True):
        assert torch.equal(a, b)
    assert MAMP.from_checkpoint(whole.folder / "model.safetensors", "cpu").arch == "light"


def test_scores_while_training(arguments, davis_folder, caplog):
    caplog.set_level("INFO")
    run = trainer(arguments(f"--steps 2 --eval_every 2 --eval_datapath {davis_folder} --eval_sequences two"))
    run.run()
    assert "J&F" in caplog.text
    assert len(list((run.folder / "DAVIS/two").glob("*.png"))) == 8


def test_ctrl_c_saves_and_says_how_to_go_on(arguments, tmp_path):
    argv = arguments("--steps 100000 --proc_name stopped --worker 1")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "main_train.py"), *argv],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "stopped/log.txt"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (log.exists() and "step 5/" in log.read_text()):
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with --resume" in errors and "Traceback" not in errors
    _, about = checkpoint.load(tmp_path / "stopped/last.pt")
    assert about["step"] >= 5


def test_the_missing_channel_is_not_in_the_input():
    seen = {}

    def model(query, memory, colour):
        seen.update(query=query, memory=memory, colour=colour)
        return torch.zeros(2, 1, 4, 4), query, memory

    frames = torch.rand(2, 3, 3, 16, 16)
    out, _, _ = reconstruct(model, frames, 2)
    assert out.shape == (2, 1, 16, 16)
    assert (seen["query"][:, 2] == 0).all() and (seen["memory"][:, :, 2] == 0).all()
    torch.testing.assert_close(seen["query"][:, :2], 1.5 * frames[:, -1, :2])
    torch.testing.assert_close(seen["colour"][:, :, 0], frames[:, :-1, 2, ::4, ::4])


def test_a_run_may_start_from_another_and_go_on_by_itself(arguments):
    first = trainer(arguments("--steps 2 --proc_name first"))
    first.run()
    second = trainer(arguments("--steps 2 --proc_name second --init first --resume auto --img_size 48"))
    assert second.step == 0
    weights = MAMP.from_checkpoint(first.folder / "model.safetensors", "cpu").state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in second.model.state_dict().items())
    second.run()
    again = trainer(arguments("--steps 2 --proc_name second --init first --resume auto --img_size 48"))
    assert again.step == 2
    with pytest.raises(UserError, match="--init"):
        trainer(arguments(f"--resume {first.folder / 'model.safetensors'}"))


def test_several_runs_can_be_averaged_and_saved_without_a_step(arguments):
    for seed in (1, 2):
        trainer(arguments(f"--steps 1 --seed {seed} --proc_name run{seed}")).run()
    run = trainer(arguments("--steps 0 --ema 0 --proc_name mean --init run1,run2"))
    run.run()
    one, two, mean = (
        MAMP.from_checkpoint(run.folder.parent / name / "model.safetensors", "cpu").state_dict()
        for name in ("run1", "run2", "mean")
    )
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, (one[name] + two[name]) / 2, atol=1e-4, rtol=2e-3)  # float16


def test_flow_loss_is_the_cross_entropy_of_the_matches():
    torch.manual_seed(0)
    query, memory = torch.randn(2, 8, 3, 4), torch.randn(2, 2, 8, 3, 4)
    matched = torch.randint(-1, 12, (2, 2, 12))
    terms = []
    for b in range(2):
        for m in range(2):
            for p in range(12):
                if matched[b, m, p] >= 0:
                    scores = memory[b, m].flatten(1).T @ query[b].flatten(1)[:, p] / 8**0.5
                    terms.append(-scores.log_softmax(0)[matched[b, m, p]])
    torch.testing.assert_close(flow_loss(query, memory, matched, queries=12), torch.stack(terms).mean())
    assert flow_loss(query, memory, torch.full_like(matched, -1)) == 0


def test_flow_loss_teaches_to_find_what_moved(arguments):
    run = trainer(arguments("--steps 25 --lr 3e-3 --flow_loss 1 --img_size 48"))
    samples = [run.data[0, i] for i in range(16)]
    frames, matched = (torch.stack(part) for part in zip(*samples, strict=True))
    losses = []
    for _ in range(2):
        run.model.train()  # batch statistics: so few steps leave the running ones behind
        with torch.no_grad():
            _, query, memory = reconstruct(run.model, frames, 1)
            losses.append(flow_loss(query, memory, matched, queries=144).item())
        if len(losses) == 1:
            run.run()
    assert losses[1] < 0.9 * losses[0]


def test_schedules():
    paper = argparse.Namespace(schedule="paper", lr=1e-3, bsize=24)
    rates = [learning_rate(paper, samples // 24 + 1, 0) for samples in (0, 4e5, 6e5, 8e5, 1e6)]
    assert rates == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4, 6.25e-5])
    cosine = argparse.Namespace(schedule="cosine", lr=1e-3, bsize=24, warmup=10)
    assert learning_rate(cosine, 0, 100) == pytest.approx(1e-4)
    assert learning_rate(cosine, 10, 100) == pytest.approx(1e-3)
    assert learning_rate(cosine, 100, 100) == pytest.approx(0)


def test_options_that_cannot_work_are_refused(arguments):
    for more, message in {
        "--arch lab": "no parameters",
        "--bsize 1000": "less than one --bsize 1000",
        "--intervals 1,2,3": "equally many",
    }.items():
        with pytest.raises(UserError, match=message):
            trainer(arguments(more))
    first = trainer(arguments("--steps 1"))
    first.run()
    with pytest.raises(UserError, match="--bsize 4"):
        trainer(arguments(f"--bsize 8 --resume {first.folder / 'last.pt'}"))


def test_two_processes_train_as_one(arguments, tmp_path):
    """Same samples a step, same gradients: a step of both gives the same weights."""
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    result = run_entry("tests/two_processes.py", tmp_path / "two.pt", *arguments("--arch light"), launcher=torchrun)
    assert result.returncode == 0, result.stderr[-2000:]
    alone = run_entry("tests/two_processes.py", tmp_path / "one.pt", *arguments("--arch light"))
    assert alone.returncode == 0, alone.stderr[-2000:]
    two, one = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("two", "one"))
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_adaptation_improves_on_the_video_and_leaves_the_model_alone(clip):
    torch.manual_seed(0)
    model = MAMP("light").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frames = [frame for frame, _ in clip]
    adapted = adapt(model, frames, 20, lr=3e-4, quiet=True)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    lab = torch.stack([torch.from_numpy(to_lab(frame)) for frame in frames])
    pairs = torch.stack((lab[:-2], lab[2:]), 1)
    with torch.inference_mode():
        losses = [colour_loss(reconstruct(m, pairs, 1)[0], pairs, 1).item() for m in (model, adapted)]
    assert losses[1] < losses[0]
    assert not adapted.training
    assert adapt(model, frames[:1], 5, quiet=True) is model
