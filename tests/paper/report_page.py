"""A report made in a test, taken apart."""

from __future__ import annotations

import base64
import gzip
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from diffhash.paper.report.page import write_report
from diffhash.paper.table import load_tables

VOID = {"meta", "link", "input", "br", "hr", "img"}


class Page(HTMLParser):
    """A page taken apart: elements with their attributes, text without scripts, plots by id."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.style = ""
        self.parts: list[str] = []
        self.inside: list[tuple[str, dict[str, str]]] = []
        self.feed(html)
        self.close()
        figures = [a["id"] for tag, a in self.elements if tag == "figure"]
        packed = [
            t for a, t in self.scripts if a.get("type") == "application/gzip" and not a.get("id")
        ]
        data = [json.loads(gzip.decompress(base64.b64decode(text))) for text in packed]
        self.plots: dict[str, dict[str, Any]] = dict(zip(figures, data, strict=True))
        self.text = " ".join(" ".join(self.parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in VOID:
            self.inside.append((tag, attributes))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop()[0] == tag, f"</{tag}> does not close what is open"

    def handle_data(self, data: str) -> None:
        tag, attributes = self.inside[-1] if self.inside else ("", {})
        if tag == "script":
            self.scripts.append((attributes, data))
        elif tag == "style":
            self.style += data
        else:
            self.parts.append(data)


RESULTS = Path(__file__).parents[2] / "results"


def report(runs: Path, output: Path, suite: Path | None = None) -> Page:
    """The page of these runs, taken apart."""
    return Page(write_report(load_tables(runs), output, suite).read_text())


def curves(plot: dict[str, Any], model: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The run, x and y of each curve of a model, panel by panel."""
    found = []
    for trace in (trace for trace in plot["data"] if trace["name"] == model):
        x, y = (decode(trace[axis]) for axis in "xy")
        ends = np.flatnonzero(np.isnan(y))
        for begin, end in zip([0, *(ends[:-1] + 1)], ends, strict=True):
            found.append((trace["customdata"][begin][0], x[begin:end], y[begin:end]))
    return found


def decode(values: Any) -> np.ndarray:
    """The numbers that plotly has encoded."""
    if isinstance(values, dict):
        return np.frombuffer(base64.b64decode(values["bdata"]), f"<{values['dtype']}")
    return np.array(values, dtype=float)
