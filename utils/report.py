"""An evaluation as one HTML file that needs nothing beside it: numbers, curves over time, pictures."""

from __future__ import annotations

import base64
import html
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

from utils.checkpoint import replacing

COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b")
VERSIONS = ("torch", "torchvision", "numpy", "opencv-python-headless", "numba")
STYLE = """body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1100px;color:#222}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}figure{display:inline-block;margin:.4em}img{max-width:340px}
figcaption{font-size:13px;color:#555}svg{background:#fafafa}code{background:#f3f3f3}"""


@dataclass
class Section:
    """One video in a report.

    Attributes:
        name: of the video.
        curves: values 0..1 over time by what they are, e.g. "J of object 1".
        pictures: (caption, uint8 RGB [H, W, 3]).
    """

    name: str
    curves: Mapping[str, Sequence[float]]
    pictures: list[tuple[str, np.ndarray]] = field(default_factory=list)


def write_report(
    path: Path, title: str, scores: Mapping[str, float], sections: Sequence[Section], settings: Mapping[str, object]
) -> None:
    """Write an HTML file.

    Args:
        scores: of everything, shown in percent. settings: shown as they are, with versions and the machine.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if scores:
        parts.append(_table([[name, f"{100 * value:.2f}"] for name, value in scores.items()]))
        means = [[s.name, *(f"{100 * np.nanmean(v):.1f}" for v in s.curves.values())] for s in sections]
        parts.append("<h2>Means over time, in percent</h2>" + _table(means))
    for section in sections:
        parts.append(f"<h2>{html.escape(section.name)}</h2>{_plot(section.curves)}<br>")
        parts += [f"<figure>{_image(image)}<figcaption>{html.escape(text)}</figcaption></figure>"
                  for text, image in section.pictures]  # fmt: skip
    about = {"python": platform.python_version(), "machine": platform.machine()}
    about |= {name: version(name) for name in VERSIONS}
    rows = [[str(name), str(value)] for name, value in {**settings, **about}.items()]
    parts.append("<h2>Settings and versions</h2>" + _table(rows))
    text = f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    with replacing(path) as temporary:
        temporary.write_text(f"{text}<style>{STYLE}</style><body>{''.join(parts)}</body></html>", encoding="utf-8")


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"


def _image(picture: np.ndarray) -> str:
    """A JPEG inside of the page, at most 480 pixels wide."""
    scale = min(1.0, 480 / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}">'


def _plot(curves: Mapping[str, Sequence[float]], width: int = 900, height: int = 180) -> str:
    """The curves over time as SVG, 0 at the bottom and 1 at the top, with a legend."""
    lines = [f'<line x1="0" x2="{width}" y1="{y}" y2="{y}" stroke="#ddd"/>' for y in np.linspace(0, height, 5)]
    legend = []
    for i, (name, values) in enumerate(curves.items()):
        colour = COLOURS[i // 2 % len(COLOURS)] if len(curves) > 1 else COLOURS[0]
        dashes = ' stroke-dasharray="4 3"' if i % 2 and len(curves) > 1 else ""
        x = np.linspace(0, width, max(2, len(values)))
        points = " ".join(f"{a:.1f},{height * (1 - b):.1f}" for a, b in zip(x, values, strict=False) if b == b)
        lines.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.6"{dashes} points="{points}"/>')
        legend.append(f'<span style="color:{colour}">{"- -" if dashes else "—"} {html.escape(name)}</span>')
    drawing = f'<svg viewBox="0 0 {width} {height}" width="{width}">{"".join(lines)}</svg>'
    return f"{drawing}<div>{' &nbsp; '.join(legend)}</div>"
