"""The study `pair`: MAE against MAE + MFF, and PixMIM against PixMIM + MFF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lamina.core.intervals import SHARE, estimate, first_reach, seeds_of, verdict
from lamina.core.plotting import WIDTH, legend_below, method_colour
from lamina.data.sources import Source
from lamina.interop.load import load_encoder
from lamina.runs.run import Run
from lamina.studies.measure import StudyMeasurements
from lamina.studies.options import StudyOptions, base_recipe
from lamina.studies.page import StudyReport, Table
from lamina.studies.quantity import HIGH_BAND, KNN, LINEAR, PROBES, Quantity
from lamina.studies.run import Arm, Measured, Study, StudyPlan, seconds_of
from lamina.train import checkpoint

CHECKPOINTS = 6
"""Number of checkpoints that are probed, the last step among them."""
PAIRS = (("MAE", "MAE + MFF"), ("PixMIM", "PixMIM + MFF"))
KEYS = {"kNN": "knn", "linear probe": "linear"}
"""Under which keys the curves of the probes are kept."""
AMPLITUDE = Quantity("high band", lambda run: run["spectrum"]["high_band"], False, scale=1.0, digits=3)
SHARPNESS = Quantity(
    "Hessian maximum", lambda run: float(np.mean(run["hessian_maxima"])), False, scale=1.0, digits=2
)
COMPARED = {
    **{f"{name} (points)": probe for name, probe in PROBES.items()},
    "high band's share (points)": HIGH_BAND,
    "Hessian maximum": SHARPNESS,
}
"""What the runs of a pair are compared by, in the words of the findings."""


def _plan(options: StudyOptions, source: Source, steps: int, out: Path) -> StudyPlan:
    base = base_recipe(options, source, steps)
    base = replace(
        base,
        fusion=replace(base.fusion, layers="default"),
        train=replace(
            base.train, checkpoint_every_steps=-(-steps // CHECKPOINTS), keep_checkpoints=CHECKPOINTS + 1
        ),
    )
    pixmim = replace(
        base,
        name="pixmim",
        target=replace(base.target, low_pass=40 / 112),
        data=replace(base.data, crop="simple_resized"),
    )
    arms = []
    for (plain, fused), recipe in zip(PAIRS, (base, pixmim), strict=True):
        arms += [
            Arm(plain, replace(recipe, fusion=replace(recipe.fusion, kind="none"))),
            Arm(fused, recipe),
        ]
    return StudyPlan(tuple(arms), _measure, _report)


def _measure(run: Path, measurements: StudyMeasurements) -> dict[str, Any]:
    batch = Run(run).recipe().train.batch_size
    epoch = batch / Run(run).data().images
    curves: dict[str, list[float]] = {"epochs": [], "knn": [], "linear": []}
    for step in checkpoint.steps(Run(run).checkpoints):
        found = measurements.probes(load_encoder(f"{run}@{step}"))
        curves["epochs"].append(step * epoch)
        for name in KEYS.values():
            curves[name].append(found[name])
    return {
        "knn": curves["knn"][-1],
        "linear": curves["linear"][-1],
        "remarks": found["remarks"],
        "curves": curves,
        "seconds": seconds_of(run),
        "spectrum": measurements.spectrum(load_encoder(run)),
        "hessian_maxima": measurements.sharpness(run),
    }


def _report(measured: Measured, about: Mapping[str, Any]) -> StudyReport:
    findings = tuple(_finding(measured, pair) for pair in PAIRS)
    notes = (
        "The bands are amplitudes of the last block's output before the final norm, DC left out. The "
        "Hessian's maximum is by Lanczos, on the method's own loss with fixed masks, over encoder "
        "parameters, the mean of 4 mini-batches of 16 held-out images. Losses of MAE and PixMIM have "
        "other targets, so their maxima compare within a pair only.",
        "Epochs are read off lines between the probed checkpoints of one schedule; minutes are those steps "
        "at the run's median speed, in which other load on the machine has its part. A score that moves up "
        "and down is reached before the end by chance: by the same rule the plain run reaches its own final "
        "score at the share that stands beside.",
    )
    tables = _final(measured), _when(measured, about["epochs"])
    return StudyReport(tables, findings + notes, _figure(measured, about["options"]["test"]))


def _final(measured: Measured) -> Table:
    rows = []
    for name, seeds in measured.items():
        columns = (AMPLITUDE, HIGH_BAND, SHARPNESS)
        rows.append(
            {
                "method": name,
                KNN.name: KNN.mean(seeds),
                LINEAR.name: LINEAR.mean(seeds),
                "low band": _low(seeds),
                **{column.name: column.mean(seeds) for column in columns},
            }
        )
    return Table.of("At the end of training", rows)


def _when(measured: Measured, epochs: float) -> Table:
    header = (
        "pair",
        "probe",
        f"epochs of {epochs:.1f}",
        "share of them",
        "the plain run's own",
        "minutes",
        "share of the plain run's",
        "gain at the end, points",
    )
    rows = tuple(_reached(measured, pair, probe) for pair in PAIRS for probe in KEYS)
    return Table("Where the fused run reaches the plain run's final score", header, rows)


def _low(seeds: Sequence[dict[str, Any]]) -> str:
    """A grid of 4 x 4 patches or less has no frequency below pi / 2 but DC."""
    values = [s["spectrum"]["low_band"] for s in seeds]
    return "none" if None in values else estimate(values).tell(digits=3)


def _reached(measured: Measured, pair: tuple[str, str], probe: str) -> tuple[str, ...]:
    plain, fused = (measured[name] for name in pair)
    key = KEYS[probe]
    epochs, shares, minutes, clocks, own = [], [], [], [], []
    for ours, theirs in zip(fused, plain, strict=True):
        total = theirs["curves"]["epochs"][-1]
        itself = _reach(theirs, key, theirs[key])
        assert itself is not None  # a curve is at its own end, at the end
        own.append(itself / total)
        if (at := _reach(ours, key, theirs[key])) is not None:
            epochs.append(at)
            shares.append(at / total)
            minutes.append(shares[-1] * ours["seconds"] / 60)
            clocks.append(shares[-1] * ours["seconds"] / theirs["seconds"])
    named = f"{pair[1]} - {pair[0]}", probe
    gain = PROBES[probe].change(fused, plain)
    alone = _percent(own)
    if len(shares) < len(plain):
        return *named, f"reached by {len(shares)} of {len(plain)} seeds", "", alone, "", "", gain
    when = estimate(epochs).tell(digits=2), _percent(shares), alone
    clock = f"{estimate(clocks).tell(100, digits=0)} %"  # may be longer than the other's
    return *named, *when, estimate(minutes).tell(digits=1), clock, gain


def _reach(run: Mapping[str, Any], key: str, score: float) -> float | None:
    """The epochs after which a run's probe is there."""
    return first_reach(run["curves"]["epochs"], run["curves"][key], score)


def _percent(shares: Sequence[float]) -> str:
    return estimate(shares, SHARE).tell(100, digits=0) + " %"


def _finding(measured: Measured, pair: tuple[str, str]) -> str:
    plain, fused = (measured[name] for name in pair)
    parts = []
    for what, quantity in COMPARED.items():
        found = quantity.difference(fused, plain)
        change = found.tell(quantity.scale, quantity.digits, sign=True)
        parts.append(f"{what} {change}{verdict(found)}")
    return f"{pair[1]} minus {pair[0]}: {', '.join(parts)}."


def _figure(measured: Measured, test: int) -> Figure:
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    knn, linear, bands, sharp = figure.subplots(2, 2).flat
    n = len(next(iter(measured.values())))
    for i, (name, seeds) in enumerate(measured.items()):
        style, hue = "-" if "MFF" in name else "--", method_colour(name)
        for axes, key in ((knn, "knn"), (linear, "linear")):
            x = seeds[0]["curves"]["epochs"]
            values = 100 * np.asarray([s["curves"][key] for s in seeds])
            axes.plot(x, values.mean(0), style, color=hue, label=name)
            axes.fill_between(x, values.min(0), values.max(0), color=hue, alpha=0.12, lw=0)
        _points(bands, i, hue, [100 * value for value in HIGH_BAND.values(seeds)])
        _points(sharp, i, hue, SHARPNESS.values(seeds))
    for axes, probe in zip((knn, linear), KEYS, strict=True):
        axes.set_xlabel("epochs")
        axes.set_ylabel(f"{probe}, top-1 (%)")
    figure.suptitle(
        f"Mean of {seeds_of(n)}, shaded from lowest to highest; dots are seeds; {test:,} test images",
        fontsize="medium",
    )
    legend_below(figure, linear.get_lines())
    bands.set_ylabel("last layer: high band,\n% of the amplitude")
    sharp.set_ylabel("largest eigenvalue\nof the Hessian")
    for axes in (bands, sharp):
        axes.set_xticks(range(len(measured)), list(measured), fontsize="small")
        axes.set_xlim(-0.6, len(measured) - 0.4)
    return figure


def _points(axes: Axes, i: int, hue: str, values: list[float]) -> None:
    """Each seed, and a dash at the mean."""
    axes.scatter([i] * len(values), values, color=hue, s=14, alpha=0.7)
    axes.scatter([i], [float(np.mean(values))], marker="_", s=300, color=hue)


pair = Study(
    "pair",
    "What does fusing change? MAE against MAE + MFF, PixMIM against PixMIM + MFF: the recipes of a pair "
    "differ in `fusion.kind` and in nothing else. The paper: better features, sooner, with less high "
    "frequency in the last layer and a flatter loss.",
    {"quick": 480, "full": 2400},
    _plan,
)
