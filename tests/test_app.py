"""The web page in a real browser: open, paint or box, propagate, look, correct, download; and what is behind it."""

import os
import re
import shutil
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from datasets.video import VideoFile
from datasets.video_writer import VideoWriter
from engine.session import Session
from models import MAMP, PRESETS, MaskPropagator
from utils.errors import UserError

SCREENSHOT = ROOT / "results" / "app.png"


@pytest.fixture
def video(tmp_path, clip):
    with VideoWriter(tmp_path / "mine.mp4", 10) as writer:
        for frame, _ in clip:
            writer.write(np.kron(frame, np.ones((2, 2, 1), np.uint8)))
    return tmp_path / "mine.mp4"


def lab(**settings):
    return MaskPropagator(MAMP("lab").eval(), **PRESETS["default"] | {"flow": "none"} | settings)


def labels_at(clip, t):
    return np.kron(clip[t][1], np.ones((2, 2), np.uint8))


def test_a_session_propagates_corrects_and_exports(video, clip):
    session, propagator = Session(video, 100), lab()
    assert session.length == 8 and session.labels(3) is None
    with pytest.raises(UserError, match="mark an object"):
        list(session.propagate(propagator))
    with pytest.raises(UserError, match="nothing"):
        session.export()
    session.give(0, labels_at(clip, 0))
    assert [item.number for item in session.propagate(propagator)] == list(range(8))
    before = [session.labels(t) for t in range(8)]

    session.give(4, labels_at(clip, 4))
    assert session.given == [0, 4]
    assert [item.number for item in session.propagate(propagator.another(), start=4)] == [4, 5, 6, 7]
    assert all((session.labels(t) == before[t]).all() for t in range(4))
    assert (session.labels(4) == labels_at(clip, 4)).all()

    stopped = session.propagate(propagator)
    next(stopped)
    stopped.close()

    masks, overlay, table, coco = session.export()
    assert len(zipfile.ZipFile(masks).namelist()) == 9
    assert len(list(VideoFile(overlay))) == 8 and table.is_file() and coco.is_file()
    session.close()
    assert not session.folder.exists()


def test_two_sessions_do_not_mix(video, clip):
    shared = lab()
    sessions = [Session(video, 100), Session(video, 100)]
    sessions[0].give(0, labels_at(clip, 0))
    sessions[1].give(0, (labels_at(clip, 0) == 2).astype(np.uint8))
    runs = [session.propagate(shared.another()) for session in sessions]
    for one, two in zip(*runs, strict=True):
        assert set(np.unique(one.labels)) <= {0, 1, 2, 3} and set(np.unique(two.labels)) <= {0, 1}
    assert sessions[0].labels(7).max() == 3 and sessions[1].labels(7).max() == 1


def test_too_long_a_video_is_refused(video):
    with pytest.raises(UserError, match="8 frames; at most 5"):
        Session(video, 5)


@pytest.fixture
def page(tmp_path):
    """A page of a running app in Chromium, or a skip that says what is missing."""
    pytest.importorskip("gradio", reason="gradio is not installed: pip install -r requirements-app.txt")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    import app

    app.demo_clip()
    model = MAMP.from_checkpoint(ROOT / "ckpt" / "light.safetensors", "cpu")
    blocks = app.build(MaskPropagator(model, **PRESETS["default"]), 500)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    _, url, _ = blocks.queue(default_concurrency_limit=1).launch(
        server_name="127.0.0.1", server_port=None, prevent_thread_lock=True, quiet=True
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1360, "height": 980})
        opened.set_default_timeout(60_000)
        opened.goto(url)
        yield opened
        browser.close()
    blocks.close()


def stroke(page, points):
    """Drag the brush over the editor's canvas through points given as fractions of it."""
    box = page.locator("#editor canvas").first.bounding_box()
    x0, y0 = points[0]
    page.mouse.move(box["x"] + x0 * box["width"], box["y"] + y0 * box["height"])
    page.mouse.down()
    for x, y in points[1:]:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=8)
    page.mouse.up()


def status(page, text):
    page.locator("#status").get_by_text(text).wait_for()


def test_the_page_in_a_browser(page, video, tmp_path):
    page.locator("#upload input[type=file]").set_input_files(str(video))
    status(page, "8 frames")
    page.locator("#editor canvas").first.wait_for()
    page.wait_for_timeout(1500)
    stroke(page, [(0.12, 0.2), (0.28, 0.2), (0.28, 0.4), (0.12, 0.4), (0.2, 0.3)])
    page.wait_for_timeout(500)
    page.locator("#keep").click()
    status(page, "mask of yours: 0")
    page.locator("#go").click()
    status(page, "Done: 8 frames")
    assert page.locator("#result img").count() == 1
    page.locator("#prepare").click()
    page.locator("#files a[download]").first.wait_for()
    with page.expect_download() as download:
        page.locator("#files a[download]").first.click()
    target = tmp_path / "masks.zip"
    download.value.save_as(target)
    names = zipfile.ZipFile(target).namelist()
    assert "00000.png" in names and "00007.png" in names

    # A second visit: the demo clip, a box instead of a painted object; it leaves the picture of the README
    page.reload()
    page.locator("#demo").click()
    status(page, "48 frames")
    page.wait_for_timeout(1500)
    page.get_by_label("a box around it").check()
    stroke(page, [(0.16, 0.42), (0.34, 0.65)])
    page.wait_for_timeout(500)
    page.locator("#keep").click()
    status(page, "mask of yours: 0")
    page.locator("#go").click()
    status(page, "Done: 48 frames")
    page.locator("#frame input[type=number]").fill("24")
    page.locator("#frame input[type=number]").press("Enter")
    page.wait_for_timeout(2500)
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT)

    # Corrected in the middle, and stopped on the way
    page.locator("#keep").click()
    status(page, "mask of yours: 0, 24")
    page.locator("#on").click()
    status(page, re.compile(r"Frame \d+ of 48|Done: 48"))
    page.locator("#stop").click()
    status(page, "Stopped")


def test_no_files_are_left_when_a_visitor_leaves(video):
    session = Session(video, 100)
    folder: Path = session.folder
    assert folder.is_dir()
    pytest.importorskip("gradio", reason="gradio is not installed")
    import app

    app._close(session)
    app._close(None)
    assert not folder.exists() and threading.main_thread().is_alive() and "app" in sys.modules
