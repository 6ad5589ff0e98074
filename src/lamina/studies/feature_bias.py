"""The study `feature-bias`: which layers a target asks for, the pilot experiment of MFF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lamina.analyze.fusion_weights import analyze_layers
from lamina.core.intervals import seeds_of, uncorrected, verdict
from lamina.core.plotting import WIDTH, legend_below, method_colour
from lamina.data.sources import Source
from lamina.fusion.mff import MOST_IMAGES
from lamina.fusion.options import Projection
from lamina.interop.load import load_encoder
from lamina.recipes.recipe import Recipe
from lamina.studies.measure import SPECTRUM_IMAGES, StudyMeasurements
from lamina.studies.options import LOGIT_LR_SCALE, StudyOptions, base_recipe
from lamina.studies.page import StudyReport, Table
from lamina.studies.quantity import HIGH_BAND, KNN, LINEAR, Quantity
from lamina.studies.run import Arm, Measured, Study, StudyPlan
from lamina.supervised.options import SupervisedOptions
from lamina.targets.options import TargetOptions

TARGETS = ("pixels", "teacher", "labels")
METHOD_OF = {"pixels": "MAE + MFF", "teacher": "EVA + MFF", "labels": "DeiT + MFF"}
PROJECTIONS: tuple[Projection, ...] = ("none", "linear")
HIGHEST = Quantity(
    "high frequency, last layer",
    lambda run: run["spectrum"]["high"][-1],
    is_share=False,
    scale=1.0,
    digits=2,
)


def _bias(name: str, by: str, number: str) -> Quantity:
    return Quantity(name, lambda run: run[by][number], scale=1.0, digits=3)


BY_WEIGHT = _bias("weight on first half", "bias_by_weight", "first_half")
BY_SHARE = _bias("norm share of first half", "bias_by_share", "first_half")
COLUMNS = (
    BY_WEIGHT,
    _bias("centre of weight", "bias_by_weight", "centre"),
    BY_SHARE,
    HIGHEST,
    HIGH_BAND,
    KNN,
    LINEAR,
)
COMPARED = {
    "weight on the first half": BY_WEIGHT,
    "its norm share": BY_SHARE,
    "highest frequency of the last layer": replace(HIGHEST, digits=3),
}
"""What the targets are compared by, in the words of the findings."""


def _plan(options: StudyOptions, source: Source, steps: int, out: Path) -> StudyPlan:
    base = base_recipe(options, source, steps)
    labels = replace(
        base,
        name="deit",
        method="supervised",
        loss="cross_entropy",
        supervised=SupervisedOptions(pool=options.pool, mixup=0.0, cutmix=0.0),
    )
    teacher = Arm("teacher", replace(labels, fusion=replace(base.fusion, kind="none")))
    place = out / "runs" / f"teacher-seed{StudyPlan.teacher_seed}"
    features = replace(
        base, name="eva", target=TargetOptions(kind="teacher", teacher=str(place)), loss="cosine"
    )
    recipes: dict[str, Recipe] = {"pixels": base, "teacher": features, "labels": labels}
    arms = tuple(
        Arm(f"{target}, {projection}", replace(r, fusion=replace(r.fusion, projection=projection)))
        for target, r in recipes.items()
        for projection in PROJECTIONS
    )
    return StudyPlan(arms, _measure, _report, teacher)


def _measure(run: Path, measurements: StudyMeasurements) -> dict[str, Any]:
    layers = analyze_layers({"it": run}).runs["it"]
    backbone = load_encoder(run)
    return {
        **measurements.probes(backbone),
        "layers": list(layers.layers),
        "weights": list(layers.weights[-1]),
        "shares": list(layers.shares[-1]),
        "bias_by_weight": asdict(layers.by_weight),
        "bias_by_share": asdict(layers.by_share),
        "lr_sum": layers.lr_sums[-1],
        "spectrum": measurements.spectrum(backbone),
    }


def _report(measured: Measured, about: Mapping[str, Any]) -> StudyReport:
    rows = [
        {"target, projection": name, **{column.name: column.mean(seeds) for column in COLUMNS}}
        for name, seeds in measured.items()
    ]
    table = Table.of("All blocks fused; equal weights would put 0.5 on the first half", rows)
    teacher = about["teacher"]
    head = "class token" if about["options"]["pool"] == "cls" else "mean of the patches"
    findings = [
        f"The teacher, trained on labels with another seed: kNN {100 * teacher['knn']:.1f} %, linear probe "
        f"{100 * teacher['linear']:.1f} %. One serves all seeds: no interval here holds what another would "
        "change.",
        f"The supervised arm's head reads the {head}, so its layer weights and norm shares are of those "
        "tokens, on whole images; the others' are of the visible patches of masked ones.",
        *(_finding(measured, projection, other) for projection in PROJECTIONS for other in TARGETS[1:]),
        f"The learning rates add up to {next(iter(measured.values()))[0]['lr_sum']:.3g}; times "
        f"{LOGIT_LR_SCALE:g}, the logits' own scale, that is about how far a logit can have moved.",
        "High frequency is the natural log of the amplitude at the highest frequency minus that at DC, of "
        f"the last block's patch tokens, a mean over {SPECTRUM_IMAGES} held-out images; norm shares are of "
        f"up to {MOST_IMAGES} images of the last training batch.",
        uncorrected(len(COMPARED) * len(PROJECTIONS) * len(TARGETS[1:])),
    ]
    return StudyReport((table,), tuple(findings), _figure(measured))


def _finding(measured: Measured, projection: str, other: str) -> str:
    pixels, others = measured[f"pixels, {projection}"], measured[f"{other}, {projection}"]
    parts = []
    for what, quantity in COMPARED.items():
        found = quantity.difference(pixels, others)
        change = found.tell(quantity.scale, quantity.digits, sign=True)
        parts.append(f"{what} {change}{verdict(found)}")
    return f"Projection {projection}, pixels minus {other}: {', '.join(parts)}."


def _figure(measured: Measured) -> Figure:
    figure = Figure(figsize=(WIDTH, 6.6), layout="constrained")
    weights, shares, spectra, last = figure.subplots(2, 2).flat
    for name, seeds in measured.items():
        layers = seeds[0]["layers"]
        _line(weights, name, layers, [s["weights"] for s in seeds])
        _line(shares, name, layers, [s["shares"] for s in seeds])
        stages = seeds[0]["spectrum"]["layers"]
        _line(spectra, name, stages, [s["spectrum"]["high"] for s in seeds])
        frequencies = seeds[0]["spectrum"]["frequencies"]
        _line(last, name, frequencies, [s["spectrum"]["curve"] for s in seeds])
    n = len(next(iter(measured.values())))
    for axes, title in ((weights, "softmax weight"), (shares, "norm share")):
        axes.axhline(1 / len(layers), color="0.6", lw=0.8)
        axes.set_ylabel(title)
        axes.set_xlabel("block")
        axes.set_ylim(bottom=0)
    spectra.set_xlabel("block (-1: embedded input)")
    spectra.set_ylabel("log amplitude at the highest\nfrequency minus DC")
    last.set_xlabel("frequency (π rad per patch)")
    last.set_ylabel("last block's log amplitude minus DC")
    for axes in (weights, shares, spectra):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(
        f"All blocks fused: mean of {seeds_of(n)}, shaded from lowest to highest; grey: equal shares; "
        f"spectra of {SPECTRUM_IMAGES} images",
        fontsize="medium",
    )
    legend_below(figure, spectra.get_lines())
    return figure


def _line(axes: Axes, name: str, x: Sequence[float], rows: list[list[float]]) -> None:
    target, projection = name.split(", ")
    hue = method_colour(METHOD_OF[target])
    values = np.asarray(rows)
    style = "-" if projection == "linear" else "--"
    axes.plot(x, values.mean(0), style, color=hue, label=f"{target}, projection {projection}")
    axes.fill_between(x, values.min(0), values.max(0), color=hue, alpha=0.12, lw=0)


feature_bias = Study(
    "feature-bias",
    "Which layers does a target ask for? All blocks are fused with learned weights, and what is learned is "
    "pixels (MAE), the features of a frozen network that was trained on labels (in EVA's form), or labels "
    "(DeiT without mixing). The paper: MAE leans on shallow layers, the others do not, and their features "
    "hold less high frequency.",
    {"quick": 240, "full": 960},
    _plan,
)
