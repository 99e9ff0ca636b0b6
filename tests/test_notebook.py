"""The notebook runs from top to bottom, offline."""

import nbformat
import pytest
from conftest import ROOT


def test_the_notebook_runs():
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    notebook = nbformat.read(ROOT / "notebooks" / "your_own_video.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "committed without outputs"
    client = nbclient.NotebookClient(
        notebook, timeout=200, kernel_name="python3", resources={"metadata": {"path": ROOT / "notebooks"}}
    )
    client.execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert "object 3:" in printed and "16 masks" in printed
    one, two = (float(printed.split("J in the last frame: ")[1].split()[i]) for i in (0, 4))
    assert two >= one - 0.02 and two > 0.3
