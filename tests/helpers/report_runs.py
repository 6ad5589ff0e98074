"""A run folder as training, evaluation and the live report leave it, made up within a second, for tests."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch

from lamina.core.batch import Batch
from lamina.core.rng import sample_keys
from lamina.methods.catalog import recipe
from lamina.mim import MIM
from lamina.recipes.build import build_method, resolve
from lamina.recipes.recipe import Recipe
from lamina.report.bad_files import SkippedFile, write_skipped
from lamina.report.gallery import Gallery, write_pictures
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run

VOID = {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}


def toy_recipe(fusion: str = "mff", in_chans: int = 3) -> Recipe:
    """16 px images, 4 x 4 patches, four blocks of width 24."""
    demo = recipe("demo")
    return resolve(
        replace(
            demo,
            encoder=replace(
                demo.encoder, image_size=(16, 16), patch_size=4, in_chans=in_chans, width=24, depth=4, heads=2
            ),
            decoder=replace(demo.decoder, width=16, depth=1, heads=2),
            fusion=replace(demo.fusion, kind=fusion, layers="all" if fusion == "none" else (0, 1, 2, 3)),
        )
    )


def toy_method(fusion: str = "mff", in_chans: int = 3) -> MIM:
    return build_method(toy_recipe(fusion, in_chans))


def toy_gallery(names: list[str], labels: list[str], size: int = 16, in_chans: int = 3) -> Gallery:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (len(names), in_chans, size, size), generator=generator, dtype=torch.uint8)
    return Gallery(Batch(images, sample_keys(3, 0, torch.arange(len(names)))), names, labels, n_shown=3)


def toy_row(step: int, taps: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "step": step,
        "epoch": step / 10,
        "loss": 0.4 + math.exp(-step / 30),
        "lr": 1e-4 * step,
        "lr_sum": 5e-5 * step**2,
        "grad_norm": 1.0,
        "nonfinite": 0,
        "faults": 2,
        "images_per_second": 100.0,
        "seconds": float(step),
    }
    if taps:
        weights = torch.linspace(0, step / 100, taps).softmax(0).tolist()
        row |= {"fusion_weights": weights, "fusion_shares": weights[::-1]}
    return row


def toy_result(protocol: str, data: str, names: tuple[str, str, str]) -> dict[str, Any]:
    """Seven rows in the format of an evaluation; `names` are those of features, pool and a setting."""
    features, pool, name = names
    rows = []
    for encoder, top1, chosen in (("trained", 0.7, True), ("trained", 0.6, False), ("untrained", 0.4, True)):
        rows.append(
            {
                "encoder": encoder,
                "features": features,
                "pool": pool,
                "settings": {name: 1.0},
                "top1": top1,
                "interval": [top1 - 0.05, top1 + 0.05],
                "validation_top1": top1,
                "chosen": chosen,
            }
        )
    rows.append(rows[-1] | {"encoder": "pixels", "features": "pixels", "pool": "-", "top1": 0.5})
    return {
        "protocol": protocol,
        "data": data,
        "step": 40,
        "n_train": 200,
        "n_test": 100,
        "classes": [features, pool],
        "seed": 0,
        "rows": rows,
        "notes": [f"a note on {features}"],
    }


def toy_run(path: Path, fusion: str = "mff", names: list[str] | None = None) -> Path:
    """A whole run folder; every name that a stranger could choose is taken from `names`, in turn."""
    names = names or [f"name {i}" for i in range(20)]
    run = Run(path)
    shutil.rmtree(path, ignore_errors=True)
    run.start(toy_recipe(fusion), DataFacts(names[0], 100, "0" * 64), names[1])
    environment = {"command": names[2], "packages": {names[3]: names[4]}}
    run.environment_file.write_text(json.dumps(environment))
    rows = [toy_row(step, 4 if fusion == "mff" else 0) for step in range(10, 50, 10)]
    run.metrics_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.results.mkdir()
    for protocol in ("knn", "linear"):
        result = toy_result(protocol, names[5], (names[6], names[7], names[8]))
        (run.results / f"{protocol}-data.json").write_text(json.dumps(result))
    write_skipped(path, [SkippedFile(names[9 + i % 2], name) for i, name in enumerate(names)])
    write_pictures(toy_method(fusion), toy_gallery(names, names[::-1]), run.pictures, 40)
    return path


class Page(HTMLParser):
    """A page as its elements: (tag, attributes) in order, the text, and whether the tags nest."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"{tag} is never closed" for tag in self._open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    @property
    def text(self) -> str:
        return "".join(data for tag, data in self.texts if tag not in ("style", "title"))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]
