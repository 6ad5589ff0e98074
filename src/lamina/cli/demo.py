"""A small real run from beginning to end: pre-train on photographs, probe, write the report."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from lamina.analyze.catalog import FrequencyOptions, FusionWeightsOptions, LayerProbesOptions, analysis
from lamina.analyze.session import AnalysisSession
from lamina.api import report_callbacks
from lamina.core.config import merge
from lamina.core.console import make_console
from lamina.evaluate.probes import evaluate_knn, evaluate_linear
from lamina.evaluate.results import ProbeResult
from lamina.evaluate.score import Unfinished
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


def analyze_demo(out: Path, data: str) -> None:
    """Fusion weights, frequencies and probes of each layer, for the run's report."""
    for name, options in (
        ("layers", FusionWeightsOptions()),
        ("frequency", FrequencyOptions(data=data)),
        ("depth", LayerProbesOptions(data=data)),
    ):
        AnalysisSession(analysis(name), [str(out)], options).run("lamina demo")


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> int:
    """Pre-train a small ViT with MFF on crops of real photographs, probe it, and write its report.

    Args:
        out: Folder of the run; a run that is there is replaced.
        seed: Seed of the run.
    """
    started = time.perf_counter()
    results = run_demo(out, seed)
    run = Run(out)
    analyze_demo(out, results[0].data)
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
