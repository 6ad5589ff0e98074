"""The study `fusion`: where to fuse and how, each against plain MAE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lamina.core.errors import LaminaError
from lamina.core.intervals import seeds_of, uncorrected
from lamina.core.plotting import WIDTH, method_colour
from lamina.data.sources import Source
from lamina.interop.load import load_encoder
from lamina.studies.measure import StudyMeasurements
from lamina.studies.options import StudyOptions, base_recipe
from lamina.studies.page import StudyReport, Table
from lamina.studies.quantity import KNN, LINEAR, PROBES
from lamina.studies.run import Arm, Measured, Study, StudyPlan

PLAIN = "plain MAE"
SPREAD = 5
"""Shallow taps of the arm that projection and pooling are varied on."""


def tap_sets(depth: int) -> dict[str, tuple[int, ...]]:
    """The blocks of every arm of where to fuse, in a network of `depth` blocks; the last is always there.

    `spread M` are M blocks at equal distances from the first on; shallow and deep are the first and the last
    four before the end.
    """
    last = depth - 1
    if last < 8:
        raise LaminaError(f"shallow and deep taps overlap in {depth} blocks; give --depth 9 or more")
    spread = {f"spread {m}": (*(round(i * last / m) for i in range(m)), last) for m in range(1, SPREAD + 2)}
    return {
        "shallow": (*range(4), last),
        "deep": tuple(range(last - 4, depth)),
        "all": tuple(range(depth)),
        **spread,
    }


def _plan(options: StudyOptions, source: Source, steps: int, out: Path) -> StudyPlan:
    base = base_recipe(options, source, steps)
    sets = tap_sets(options.depth)
    fusions = {PLAIN: replace(base.fusion, kind="none")}
    fusions |= {name: replace(base.fusion, layers=layers) for name, layers in sets.items()}
    middle = fusions[f"spread {SPREAD}"]
    fusions["no projection"] = replace(middle, projection="none")
    fusions["mlp projection"] = replace(middle, projection="mlp")
    fusions["attention pooling"] = replace(middle, pooling="attention")
    arms = tuple(Arm(name, replace(base, fusion=fusion)) for name, fusion in fusions.items())
    return StudyPlan(arms, _measure, _report)


def _measure(run: Path, measurements: StudyMeasurements) -> dict[str, Any]:
    return dict(measurements.probes(load_encoder(run)))


def _report(measured: Measured, about: Mapping[str, Any]) -> StudyReport:
    plain, depth = measured[PLAIN], int(about["options"]["depth"])
    rows = []
    for name, seeds in measured.items():
        row = {"fusion": name, "blocks": _blocks(about["arms"][name]["fusion"], depth)}
        for label, probe in (("kNN", KNN), ("linear", LINEAR)):
            row[probe.name] = probe.mean(seeds)
            row[f"{label} minus plain"] = "" if name == PLAIN else probe.change(seeds, plain)
        rows.append(row)
    title = (
        "Projection is linear and pooling is average, except where the name says otherwise; those arms fuse "
        f"the blocks of spread {SPREAD}"
    )
    findings = (
        *(_ranked(measured, name) for name in PROBES),
        uncorrected(2 * (len(measured) - 1)),
    )
    figure = _figure(measured, about["options"]["test"])
    return StudyReport((Table.of(title, rows),), findings, figure)


def _blocks(fusion: Mapping[str, Any], depth: int) -> str:
    if fusion["kind"] == "none":
        return str(depth - 1)
    return " ".join(map(str, fusion["layers"]))


def _ranked(measured: Measured, name: str) -> str:
    """Which arms are clearly above or below the plain one by a probe."""
    gains = {
        arm: PROBES[name].difference(seeds, measured[PLAIN])
        for arm, seeds in measured.items()
        if arm != PLAIN
    }
    above = [name for name, gain in gains.items() if gain.clear and gain.mean > 0]
    below = [name for name, gain in gains.items() if gain.clear and gain.mean < 0]
    title = name if name == "kNN" else name.capitalize()
    return (
        f"{title}: clearly above plain MAE: {', '.join(above) or 'none'}; clearly below: "
        f"{', '.join(below) or 'none'}; the others do not differ clearly from it."
    )


def _figure(measured: Measured, test: int) -> Figure:
    figure = Figure(figsize=(WIDTH, 1.2 + 0.3 * len(measured)), layout="constrained")
    plain, fused = method_colour("MAE"), method_colour("MAE + MFF")
    panels = figure.subplots(1, 2, sharey=True)
    n = len(next(iter(measured.values())))
    for axes, (label, probe) in zip(panels, PROBES.items(), strict=True):
        found = [probe.estimate(seeds) for seeds in measured.values()]
        for row, (name, one) in enumerate(zip(measured, found, strict=True)):
            hue = plain if name == PLAIN else fused
            low, high = one.interval or (one.mean, one.mean)
            sides = [[100 * (one.mean - low)], [100 * (high - one.mean)]]
            axes.errorbar(100 * one.mean, row, xerr=sides, fmt="o", color=hue, capsize=3)
        axes.axvline(100 * found[0].mean, color=plain, lw=0.8, ls="--")
        axes.set_yticks(range(len(measured)), list(measured))
        axes.set_ylim(len(measured) - 0.5, -0.5)
        axes.set_xlabel(f"{label}, top-1 (%)")
    figure.suptitle(
        f"Mean of {seeds_of(n)} and its 95 % interval; dashed: plain MAE; {test:,} test images",
        fontsize="medium",
    )
    return figure


fusion = Study(
    "fusion",
    "Where should layers be fused, and how? Sets of blocks, projections and poolings, each against plain "
    "MAE; arms differ in `fusion` and in nothing else.",
    {"quick": 180, "full": 840},
    _plan,
)
