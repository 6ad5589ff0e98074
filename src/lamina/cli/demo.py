"""A small real run from beginning to end: pre-train on photographs, probe, write the report."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from lamina.analyze import summary
from lamina.analyze.frequency import analyze_frequency
from lamina.analyze.fusion_weights import analyze_layers
from lamina.analyze.layer_probes import analyze_depth
from lamina.analyze.options import Looking
from lamina.analyze.session import AnalysisTask
from lamina.api import report_callbacks
from lamina.core.config import merge
from lamina.core.console import make_console
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.evaluate.results import ProbeResult
from lamina.evaluate.score import Unfinished
from lamina.interop.load import load_encoder
from lamina.methods.catalog import demo as demo_recipe
from lamina.pretraining import run_pretrain
from lamina.report.page import write_report
from lamina.runs.run import Run

DATA = "sample:photos?crop=20"


def run_demo(out: Path, seed: int = 0) -> tuple[ProbeResult, ProbeResult]:
    """Pre-train by the demo recipe, then kNN and linear probe beside their baselines, all kept in `out`.

    Raises:
        Unfinished: where the training was interrupted.
    """
    recipe = merge(demo_recipe(), {"train": {"seed": seed}})
    outcome = run_pretrain(recipe, DATA, out, overwrite=True, callbacks=report_callbacks)
    if outcome.exit_code:
        raise Unfinished(outcome.sentence, outcome.exit_code)
    return evaluate_knn(str(out), DATA), evaluate_linear(str(out), DATA)


def look_inside(out: Path, data: str) -> None:
    """Layer weights, frequencies and depth, into the run's report."""
    looking, command = Looking(data=data), "lamina demo"
    task = AnalysisTask("layers", [str(out)], looking)
    weights = analyze_layers(task.named)
    task.write(weights, summary.of_layers(weights), command)
    task = AnalysisTask("frequency", [str(out)], looking)
    frequencies = analyze_frequency(task.subjects())
    task.write(frequencies, summary.of_frequency(frequencies), command)
    task = AnalysisTask("depth", [str(out)], looking)
    probes = analyze_depth({name: load_encoder(spec) for name, spec in task.named.items()}, data)
    task.write(probes, summary.of_depth(probes), command)


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> int:
    """Pre-train a small ViT with MFF on crops of real photographs, probe it, and write its report.

    Args:
        out: Folder of the run; a run that is there is replaced.
        seed: Seed of the run.
    """
    started = time.perf_counter()
    results = run_demo(out, seed)
    run = Run(out)
    look_inside(out, results[0].data)
    write_report([out], run.report_file)
    table = Table("test top-1", "trained", "untrained", "raw pixels", box=None, padding=(0, 3, 0, 0))
    for result in results:
        cells = [f"{100 * result.chosen(name).top1:.1f} %" for name in ("trained", "untrained", "pixels")]
        table.add_row({"knn": "kNN", "linear": "linear probe"}[result.protocol], *cells)
    console = make_console()
    console.print()
    console.print(table)
    console.print(
        f"\n{len(results[0].classes)} photographs, {results[0].n_test} test crops; "
        f"{time.perf_counter() - started:.0f} s in all",
        markup=False,
    )
    console.print(f"report: {run.report_file.resolve()}", markup=False, soft_wrap=True)
    return 0
