"""J and F: the official tool's numbers, and the cases at the edges."""

import json

import numpy as np
import pytest

from datasets.davis import Davis
from engine import scoring
from utils.metrics import boundary_f, jaccard, statistics, summarize


def test_official_scores(golden, tmp_path):
    root = golden / "metrics"
    official = json.loads((root / "official_scores.json").read_text())
    davis = Davis(root / "DAVIS", 2017)
    scores = [s for name in davis.names for s in scoring.score_sequence(davis, name, root / "predictions")]
    for key, value in scoring.report(scores, tmp_path, "val").items():
        assert value == pytest.approx(official["global"][key], abs=1e-6)
    for score in scores:
        expected = official["per_object"][score.name]
        assert score.j.mean() == pytest.approx(expected["J-Mean"], abs=1e-6)
        assert score.f.mean() == pytest.approx(expected["F-Mean"], abs=1e-6)
    header, values = (tmp_path / "global_results-val.csv").read_text().splitlines()
    assert header == "J&F-Mean,J-Mean,J-Recall,J-Decay,F-Mean,F-Recall,F-Decay"
    assert float(values.split(",")[0]) == pytest.approx(official["global"]["J&F-Mean"], abs=1e-6)
    rows = (tmp_path / "per-sequence_results-val.csv").read_text().splitlines()
    assert rows[0] == "Sequence,J-Mean,F-Mean" and len(rows) == 1 + len(official["per_object"])


def test_masks_at_the_edges():
    nothing, something = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    something[10:20, 10:20] = True
    assert jaccard(nothing, nothing) == boundary_f(nothing, nothing) == 1
    assert jaccard(nothing, something) == boundary_f(nothing, something) == boundary_f(something, nothing) == 0
    assert jaccard(something, something) == boundary_f(something, something) == 1
    moved = np.roll(something, 1, 1)
    assert jaccard(something, moved) == pytest.approx(90 / 110)
    assert boundary_f(something, moved) == 1, "within 0.8 % of the diagonal"


def test_statistics():
    mean, recall, decay = statistics(np.array([1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]))
    assert mean == pytest.approx(0.5) and recall == 0.5 and decay == pytest.approx(2.8 / 3 - 0.2 / 3)


def test_the_mean_is_over_objects(clip):
    truth = [labels for _, labels in clip]
    scores = [
        scoring.score_object("a", [t == 1 for t in truth], [t == 1 for t in truth]),
        scoring.score_object("b", [t == 2 for t in truth], [t == 9 for t in truth]),
    ]
    assert summarize(scores)["J&F-Mean"] == 0.5
