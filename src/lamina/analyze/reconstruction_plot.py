"""The picture of a reconstruction analysis: energies by frequency, error over original, bands and PSNR."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lamina.analyze.output import Summary
from lamina.analyze.reconstruction import Band, ModelReconstruction, ReconstructionResult
from lamina.core.plotting import WIDTH, coloured, figure_text, legend_below, tidy
from lamina.core.text import NO_VALUE

BANDS = {"mean": "patch\nmean", "low": "below\nπ/2", "high": "from π/2\non"}
PALE, FULL = 0.4, 1.0
LARGEST = 3.0
"""A ratio beyond which the axis is logarithmic."""


def draw(result: ReconstructionResult) -> Figure:
    """Error and original by frequency and their ratio above; the ratio of the bands and PSNR below."""
    figure = Figure(figsize=(WIDTH, 6.4), layout="constrained")
    (energies, ratios), (bands, psnr) = figure.subplots(2, 2, height_ratios=(1.2, 1))
    _energies(energies, result)
    for _, model, hue in coloured(result.models):
        _curve(ratios, model, model.ratio, hue)
    ratios.set_ylabel("energy of error / original")
    ratios.set_title("relative error (0: exact, 1: baseline)", fontsize="small")
    for panel in (energies, ratios):
        panel.axvline(0.5, color="0.8", lw=0.8, zorder=0)
        panel.set_xticks([0, 0.5, 1], ["0: patch mean", "1/2", "1: Nyquist"])
        panel.set_xlabel("frequency (π rad per px)")
    _bands(bands, result)
    _scale(ratios, [model.ratio for model in result.models.values()])
    _scale(bands, [[getattr(m, b).ratio for b in BANDS if getattr(m, b)] for m in result.models.values()])
    _psnr(psnr, result)
    for panel in (energies, ratios, bands, psnr):
        tidy(panel)
    legend_below(figure, _keys(result))
    return figure


def _energies(panel: Any, result: ReconstructionResult) -> None:
    models = list(result.models.values())
    alike = all(_same_original(model, models[0]) for model in models)
    for i, (_, model, hue) in enumerate(coloured(result.models)):
        if i == 0 or not alike:
            grey = "0.45" if alike else hue
            panel.plot(model.frequencies[1:], model.original[1:], "--", color=grey, lw=1.3)
        _curve(panel, model, model.error, hue)
    panel.set_yscale("log")
    panel.set_ylabel("mean energy per coefficient")
    panel.set_title("error and original at hidden patches", fontsize="small")


def _same_original(one: ModelReconstruction, other: ModelReconstruction) -> bool:
    alike = one.frequencies == other.frequencies
    return alike and np.allclose(one.original[1:], other.original[1:], rtol=1e-6)


def _curve(panel: Any, model: ModelReconstruction, values: Any, hue: str) -> None:
    """A line from the lowest frequency on; the patch mean is a point by itself."""
    panel.plot(model.frequencies[1:], values[1:], "o-", color=hue, ms=3.5, lw=1.4)
    if values[0] is not None:
        panel.plot(0, values[0], "D", color=hue, markerfacecolor=_face(model, hue), ms=5)


def _face(model: ModelReconstruction, hue: str) -> str:
    return "white" if model.norm_pix else hue


def _bands(panel: Any, result: ReconstructionResult) -> None:
    n = len(result.models)
    for i, (_, model, hue) in enumerate(coloured(result.models)):
        for j, which in enumerate(BANDS):
            band = getattr(model, which)
            if band is None or band.ratio is None:
                continue
            face = _face(model, hue) if which == "mean" else hue
            at = j + (i - (n - 1) / 2) * 0.6 / n
            look = {"color": hue, "markerfacecolor": face, "ms": 5, "capsize": 2.5, "lw": 1.2}
            panel.errorbar(at, band.ratio, band.standard_error, fmt="D" if which == "mean" else "o", **look)
    panel.set_xticks(range(len(BANDS)), list(BANDS.values()))
    panel.set_xlim(-0.5, len(BANDS) - 0.5)
    panel.set_ylabel("energy of error / original")
    panel.set_title("relative error, ± standard error over images", fontsize="small")


def _scale(panel: Any, ratios: Any) -> None:
    """An axis from 0 on with a line at 1; logarithmic where a model is far worse than the baseline."""
    panel.axhline(1, color="0.45", linestyle=":", lw=1.2)
    if max((ratio for each in ratios for ratio in each if ratio is not None), default=1.0) > LARGEST:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)


def _psnr(panel: Any, result: ReconstructionResult) -> None:
    turned = 90 if len(result.models) > 4 else 0
    for i, (_, model, hue) in enumerate(coloured(result.models)):
        for value, aside, alpha in ((model.baseline_psnr, -0.21, PALE), (model.psnr, 0.21, FULL)):
            endless = value == float("inf")
            text = "no error" if endless else " " * bool(turned) + f"{value:.1f}"
            panel.bar(i + aside, 0 if endless else value, 0.4, color=hue, alpha=alpha)
            look = {"ha": "center", "va": "bottom", "fontsize": "x-small"}
            panel.text(i + aside, 0 if endless else value, text, rotation=90 if endless else turned, **look)
    panel.set_xticks([])
    panel.set_xlim(-0.6, len(result.models) - 0.4)
    panel.margins(y=0.2 if turned else 0.1)
    panel.set_ylabel("PSNR (dB)")
    panel.set_title("hidden patches: higher is better", fontsize="small")


def _keys(result: ReconstructionResult) -> list[Any]:
    keys: list[Any] = []
    for name, model, hue in coloured(result.models):
        (rows, columns), hidden = model.patch, 100 * model.mask_ratio
        images = f"{model.n_images} images, {hidden:.0f} % of {rows} x {columns} px hidden"
        keys.append(Line2D([], [], color=hue, linewidth=3, label=f"{figure_text(name, 30)} ({images})"))
    keys.append(Line2D([], [], color="0.45", linestyle="--", label="original"))
    keys.append(Patch(color="0.3", alpha=PALE, label="baseline: a mean colour"))
    if any(model.norm_pix for model in result.models.values()):
        given = Line2D([], [], color="0.3", marker="D", linestyle="", markerfacecolor="white")
        given.set_label("patch mean: colour only, brightness is given")
        keys.append(given)
    return keys


def summarize(result: ReconstructionResult) -> Summary:
    """Error over original in two bands and at the patch mean, and PSNR beside its baseline."""
    rows, notes = [], dict[str, list[str]]()
    for name, model in result.models.items():
        rows.append(
            {
                "run": name,
                "images": str(model.n_images),
                "hidden": f"{100 * model.mask_ratio:.0f} %",
                "PSNR": f"{model.psnr:.2f} dB",
                "PSNR of the baseline": f"{model.baseline_psnr:.2f} dB",
                "relative error: patch mean": _relative_error(model.mean),
                "relative error: below π/2": _relative_error(model.low),
                "relative error: from π/2 on": _relative_error(model.high),
            }
        )
        for note in _conditions(model):
            notes.setdefault(note, []).append(name)
    note = (
        "relative error: energy of the error over that of the original at hidden patches, ± standard error "
        "over images; 100 %: no better than the baseline"
    )
    return Summary.of(rows, note, *(f"{', '.join(of)}: {note}" for note, of in notes.items()))


def _relative_error(band: Band | None) -> str:
    if band is None or band.ratio is None:
        return NO_VALUE
    error = "" if band.standard_error is None else f" ± {100 * band.standard_error:.1f}"
    return f"{100 * band.ratio:.1f}{error} %"


def _conditions(model: ModelReconstruction) -> list[str]:
    notes = []
    if model.norm_pix:
        notes.append(
            "the method predicts normalised patches, so its prediction is given the mean and deviation of "
            "the true patch over pixels and channels; the baseline is that mean, and the column of the patch "
            "mean holds differences between channels alone"
        )
    else:
        notes.append("baseline: the mean colour of the visible patches")
    if model.low_pass is not None:
        cutoff = f"{model.low_pass:.2g} of Nyquist"
        notes.append(f"the target is cut off at {cutoff}; the error is against the unfiltered images")
    return notes
