"""The page of a tokenizer: images beside their reconstructions from ids, and how often each id is used."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from lamina.core.batch import Batch, unit_float
from lamina.core.config import flatten, to_mapping
from lamina.core.frozen import device_of, eval_mode
from lamina.core.shown_pixels import to_uint8
from lamina.core.text import printable
from lamina.data.sources import Source
from lamina.report.colours import ACCENT
from lamina.report.format import count, percent
from lamina.report.jinja import write_page
from lamina.report.picture_grid import ORIGINAL, Card, Tile
from lamina.report.picture_store import as_pil, embedded
from lamina.report.plots import LineChart, Series, line_chart
from lamina.report.sections import Fact
from lamina.tokenizer.folder import TokenizerFolder, load_tokenizer
from lamina.tokenizer.measure import TokenizerResult, measure_tokenizer, patch_means
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.vae import DiscreteVAE
from lamina.tokenizer_training import held_out_batches, on_training_device
from lamina.train.callbacks import Callback
from lamina.train.log_files import METRICS
from lamina.train.rows import whole_rows
from lamina.train.state import Outcome

SHOWN = 12


class TokenizerReport(Callback):
    """Writes `report.html` when the training ends."""

    def __init__(self, folder: TokenizerFolder, held_out: Source, options: TokenizerOptions) -> None:
        self.folder, self.held_out, self.options = folder, held_out, options
        self.task: nn.Module | None = None

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        """Remember what is trained."""
        self.task = task

    def on_end(self, outcome: Outcome) -> None:
        """Write the page of a training that is finished, also where a resume found nothing left to train."""
        if outcome.exit_code:
            return
        task = self.task if self.task is not None else load_tokenizer(self.folder.path)[0]
        if isinstance(task, DiscreteVAE):
            tokenizer = on_training_device(task, self.options)
            write_tokenizer_report(tokenizer, self.folder, self.held_out, self.options)
            print(printable(f"report {self.folder.report}"), flush=True)


def write_tokenizer_report(
    tokenizer: DiscreteVAE, folder: TokenizerFolder, held_out: Source, options: TokenizerOptions
) -> Path:
    """Measure the tokenizer on held-out images and write its page, one self-contained file."""
    result = measure_tokenizer(tokenizer, held_out_batches(held_out, options))
    first = next(held_out_batches(held_out, options))
    page = {
        "name": folder.path.resolve().name,
        "facts": _facts(result, options),
        "charts": [chart for chart in (*_curves(folder), _usage(result)) if chart],
        "cards": _cards(tokenizer, first, held_out),
        "options": [
            ("images", str(folder.read().get("source", "unknown"))),
            *((name, str(value)) for name, value in flatten(to_mapping(options)).items()),
        ],
    }
    return write_page(folder.report, "tokenizer.html", page)


def _facts(result: TokenizerResult, options: TokenizerOptions) -> list[Fact]:
    gain = result.psnr - result.psnr_of_means
    return [
        Fact("PSNR", f"{result.psnr:.2f} dB", f"mean colour of each 8 x 8 px: {result.psnr_of_means:.2f} dB"),
        Fact("Over mean colours", f"{gain:+.2f} dB", f"on {count(result.images)} held-out images"),
        Fact(
            "Ids in use",
            percent(result.share_used, 0),
            f"{count(result.used)} of {count(result.vocabulary)} = {' x '.join(map(str, options.levels))}",
        ),
        Fact("Perplexity", f"{result.perplexity:.0f}", "as many equally frequent ids"),
    ]


def _curves(folder: TokenizerFolder) -> list[LineChart | None]:
    rows = whole_rows(folder.path / METRICS)
    charts = []
    for key, title, unit in (("loss", "Loss", "mean squared error"), ("psnr", "PSNR in training", "dB")):
        known = [row for row in rows if isinstance(row.get(key), int | float)]
        steps, values = [float(row["step"]) for row in known], [float(row[key]) for row in known]
        charts.append(
            line_chart(title, [Series(title, steps, values, ACCENT, True)], "step", unit, label="value")
        )
    return charts


def _usage(result: TokenizerResult) -> LineChart | None:
    """How often each id occurs, the most frequent first."""
    total = sum(result.counts)
    shares = [100 * n / total for n in sorted(result.counts, reverse=True)]
    ranks = [float(i + 1) for i in range(len(shares))]
    return line_chart(
        "How often each id occurs", [Series("share", ranks, shares, ACCENT, True)], "rank", "%", True
    )


def _cards(tokenizer: DiscreteVAE, batch: Batch, source: Source) -> list[Card]:
    """Images, the mean colours of their patches, and what is decoded from their ids."""
    shown = next(batch.split(SHOWN))
    assert shown.keys is not None
    images = unit_float(shown.images.to(device_of(tokenizer))).float()
    with eval_mode(tokenizer), torch.no_grad():
        decoded = tokenizer.decode(tokenizer.ids(images))
    kinds = {ORIGINAL: images, "mean colours": patch_means(images, tokenizer.stride), "from ids": decoded}
    pictures = {kind: to_uint8(made).cpu() for kind, made in kinds.items()}
    return [
        Card(source.name(index), [Tile(kind, embedded(as_pil(made[i]))) for kind, made in pictures.items()])
        for i, index in enumerate(shown.keys.tolist())
    ]
