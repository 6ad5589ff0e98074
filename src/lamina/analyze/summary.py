"""The main numbers of each analysis in a small table: what the terminal and the report show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from lamina.analyze.attention import AttentionResult
from lamina.analyze.frequency import FrequencyResult
from lamina.analyze.fusion_weights import LayersResult, LayerWeights
from lamina.analyze.hessian import BatchCurvature, HessianResult
from lamina.analyze.layer_probes import DepthResult
from lamina.analyze.output import Summary
from lamina.analyze.patches import PatchesResult
from lamina.analyze.rank import RankResult
from lamina.analyze.retrieval import RetrievalResult
from lamina.analyze.similarity import SimilarityResult

NONE = "-"


def of_layers(result: LayersResult) -> Summary:
    """Where weights and norm shares ended."""
    header = ("run", "step", "first half: weight", "norm share", "centre: weight", "norm share", "heaviest")
    rows = []
    for name, run in result.runs.items():
        heaviest = run.layers[int(np.argmax(run.weights[-1]))]
        rows.append(
            (
                name,
                str(run.steps[-1]),
                *(f"{bias.first_half:.2f}" for bias in (run.by_weight, run.by_share)),
                *(f"{bias.centre:.2f}" for bias in (run.by_weight, run.by_share)),
                f"block {heaviest}",
            )
        )
    said = "first half: mass on the first half of the blocks; centre: 0 all on the first, 1 all on the last"
    return Summary(header, tuple(rows), (*(_reach(name, run) for name, run in result.runs.items()), said))


def _reach(name: str, run: LayerWeights) -> str:
    total = f"{name}: the learning rates add up to {run.lr_sums[-1]:.3g}"
    if run.logit_reach is None:
        return f"{total}; attention pooling: weights are means over heads, tokens and images"
    reach = f"{run.logit_lr_scale:g}, that is {run.logit_reach[-1]:.3g}"
    return f"{total}; times {reach}, about how far a logit can have moved"


def of_frequency(result: FrequencyResult) -> Summary:
    """The highest frequency at the input and at the end, and the last layer's high band."""
    header = ("model", "images", "grid", "highest: input", "last block", "high band: last", "normed", "fused")
    rows = []
    for name, model in result.models.items():
        shares = [
            f"{100 * model.bands[kind].share_high:.1f} %" if kind in model.bands else NONE
            for kind in ("unnormed", "last", "fused")
        ]
        grid = f"{model.grid[0]} x {model.grid[1]}"
        ends = (f"{model.stages[0].high:.2f}", f"{model.stages[-1].high:.2f}")
        rows.append((name, str(model.n_images), grid, *ends, *shares))
    highest = f"highest: log amplitude at the highest {result.direction} frequency, minus that at DC"
    high = "high band: share of the amplitude from π/2 on; of the last block, after the final norm, and fused"
    return Summary(header, tuple(rows), (highest, high))


def of_hessian(result: HessianResult) -> Summary:
    """Medians over mini-batches, the largest residual, and what a mini-batch took."""
    header = ["model", "batches", "largest", "from", "to", "most negative", "residual up to", "products"]
    first = next(iter(result.models.values()))[0]
    header += ["first by power iteration"] if first.magnitude else []
    header += ["trace"] if first.trace else []
    rows = []
    for name, batches in result.models.items():
        maxima = result.maxima(name)
        lowest = [batch.bottom[0].value for batch in batches if batch.bottom]
        values = [value for batch in batches for value in (*batch.top, *batch.bottom)]
        worst = max(value.residual / max(abs(value.value), 1e-12) for value in values)
        rows.append(
            (
                name,
                str(len(batches)),
                *(f"{value:.4g}" for value in (np.median(maxima), min(maxima), max(maxima))),
                f"{np.median(lowest):.4g}" if lowest else NONE,
                f"{100 * worst:.2g} %",
                f"{np.median([batch.products for batch in batches]):.0f}",
                *(_of_power(batches) if first.magnitude else ()),
                *(_of_trace(batches) if first.trace else ()),
            )
        )
    count = ", ".join(f"{name} {n:,}" for name, n in result.n_parameters.items())
    notes = [f"medians over mini-batches; {result.parameters} parameters: {count}"]
    return Summary(tuple(header), tuple(rows), (*notes, *_unconverged(result)))


def _of_power(batches: Sequence[BatchCurvature]) -> tuple[str]:
    return (f"{np.median([batch.magnitude[0].value for batch in batches if batch.magnitude]):.4g}",)


def _of_trace(batches: Sequence[BatchCurvature]) -> tuple[str]:
    return (f"{np.median([batch.trace.value for batch in batches if batch.trace]):.4g}",)


def _unconverged(result: HessianResult) -> Iterator[str]:
    for name, batches in result.models.items():
        values = [value for batch in batches for value in (*batch.top, *batch.bottom)]
        if missed := sum(not value.converged for value in values):
            yield f"{name}: {missed} of {len(values)} values did not converge; the JSON has their residuals"


def of_attention(result: AttentionResult) -> Summary:
    """First and last block, means over heads."""
    header = (
        "model",
        "images",
        "distance: first",
        "last",
        "uniform",
        "entropy / log N: first",
        "last",
        "prefix, last",
    )
    rows = []
    for name, model in result.models.items():
        first, last = model.layers[0], model.layers[-1]
        rows.append(
            (
                name,
                str(model.n_images),
                *(f"{np.mean(layer.distance):.1f} px" for layer in (first, last)),
                f"{model.uniform_distance:.1f} px",
                *(f"{np.mean(layer.entropy_share):.2f}" for layer in (first, last)),
                f"{100 * np.mean(last.prefix_mass):.0f} %",
            )
        )
    said = "means over heads, images and patches; prefix: share that class tokens and registers take"
    return Summary(header, tuple(rows), (said,))


def of_similarity(result: SimilarityResult) -> Summary:
    """Input with last layer within a model, last with last between models."""
    rows = []
    for pair in result.pairs:
        within = pair.first == pair.second
        value = pair.cka[0][-1] if within else pair.cka[-1][-1]
        begins = result.layers[pair.first][0]
        first = "embedded input" if begins < 0 else f"block {begins}"
        what = f"{first} and last block" if within else "last blocks"
        rows.append((pair.first, pair.second, what, NONE if value is None else f"{value:.3f}"))
    tokens = {"mean": "mean of the patches", "cls": "class token"}[result.pool]
    said = f"debiased linear CKA of {result.n_images} images, {tokens}"
    return Summary(("model", "and", "layers", "CKA"), tuple(rows), (said,))


def of_rank(result: RankResult) -> Summary:
    """The features that a user takes."""
    header = ("model", "features", "RankMe", "effective rank", "at most", "alpha (R²)", "LiDAR")
    rows, notes = [], []
    for name, model in result.models.items():
        for score in model.final:
            law = score.power_law
            rows.append(
                (
                    name,
                    f"{score.place}, {score.pool}",
                    f"{score.rankme:.1f}",
                    f"{score.effective_rank:.1f}",
                    str(model.most),
                    NONE if law is None else f"{law.alpha:.2f} ({law.r2:.2f})",
                    NONE if score.lidar is None else f"{score.lidar:.1f}",
                )
            )
        notes += [f"{name}: {note}" for note in model.notes]
    return Summary(header, tuple(rows), tuple(notes))


def of_depth(result: DepthResult) -> Summary:
    """The best block, how flat the peak is, and what comes after it."""
    header = (
        "model",
        "probe",
        "best block",
        "its top-1",
        "as good",
        "blocks after",
        "gap, 95 %",
        "last",
        "fused",
    )
    rows, notes = [], []
    for name, model in result.models.items():
        for protocol, peak in model.peaks.items():
            low, high = (100 * bound for bound in peak.gap_interval)
            finals = [
                max(
                    (s.top1 for s in model.scores if (s.protocol, s.place) == (protocol, place)), default=None
                )
                for place in ("last", "fused")
            ]
            rows.append(
                (
                    name,
                    protocol,
                    _block(peak.best.layer) + f" of {model.depth - 1}" * (peak.best.layer >= 0),
                    f"{100 * peak.best.top1:.1f} %",
                    " to ".join(map(_block, peak.plateau)),
                    str(peak.blocks_after),
                    f"{100 * peak.gap:+.1f} ({low:+.1f} to {high:+.1f})",
                    *(NONE if value is None else f"{100 * value:.1f} %" for value in finals),
                )
            )
        notes += [f"{name}: {note}" for note in model.notes]
    model = next(iter(result.models.values()))
    images = (
        f"{model.n_train} training and {model.n_test} test images of {result.data}, {result.classes} "
        f"classes, the largest {100 * result.majority:.0f} %; the best block is chosen on the training part"
    )
    gap = "as good: within one standard error of the best block there; gap: best minus last block, in points"
    return Summary(header, tuple(rows), (images, gap, *notes))


def _block(layer: int) -> str:
    return "input" if layer < 0 else str(layer)


def of_patches(result: PatchesResult) -> Summary:
    """What the principal components explain, and tokens that stand out."""
    header = ("model", "images", "grid", "three components explain", "outliers", "cosine of two patches")
    rows = [
        (
            name,
            str(model.norms.n_images),
            f"{model.grid[0]} x {model.grid[1]}",
            _percents(model.explained),
            f"{100 * model.norms.share:.2f} %",
            f"{model.mean_cosine:.2f}",
        )
        for name, model in result.models.items()
    ]
    said = "components of the shown images; outliers: share of patches with norms far beyond the median"
    notes = [f"{n}: {m.without_attention}" for n, m in result.models.items() if m.without_attention]
    return Summary(header, tuple(rows), (said, *notes))


def of_retrieval(result: RetrievalResult) -> Summary:
    """Precision and mAP where there are labels."""
    header = ("model", "images", f"precision at {result.k}", "mAP", "chance", "near-duplicate pairs")
    rows = []
    for name, model in result.models.items():
        judged = model.judged
        scores = (NONE,) * 3 if judged is None else (
            *(f"{100 * v:.1f} %" for v in (judged.precision, judged.mean_average_precision, judged.chance)),
        )  # fmt: skip
        rows.append((name, str(model.n_images), *scores, str(model.duplicates)))
    tokens = {"mean": "mean of the patches", "cls": "class token"}[result.pool]
    centred = ", centred" if result.centred else ""
    said = f"cosines of {result.features} features ({tokens}{centred}), a query's near-duplicates left out"
    unjudged = () if any(model.judged for model in result.models.values()) else ("no labels to judge by",)
    return Summary(header, tuple(rows), (said, *unjudged))


def _percents(shares: Sequence[float]) -> str:
    return ", ".join(f"{100 * share:.0f}" for share in shares) + " %"
