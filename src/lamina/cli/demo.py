"""A small real run from beginning to end: pre-train on photographs, probe, write the report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.analyze.catalog import FrequencyOptions, LayerProbesOptions, analysis
from lamina.analyze.options import OutputOptions
from lamina.cli.output import console, print_table, say
from lamina.core.config import merge
from lamina.methods.catalog import demo as demo_recipe

if TYPE_CHECKING:
    from lamina.evaluate.score import Score

DATA = "sample:photos?crop=20"


def run_demo(out: Path, seed: int = 0) -> tuple[Score, Score]:
    """Pre-train by the demo recipe, then evaluate by kNN and a linear probe; all is kept in `out`.

    Raises:
        Unfinished: where the training was interrupted.
    """
    from lamina.api import report_callbacks
    from lamina.evaluate.probes import evaluate_knn, evaluate_linear
    from lamina.evaluate.score import Unfinished
    from lamina.pretraining import run_pretrain

    recipe = merge(demo_recipe(), {"train": {"seed": seed}})
    outcome = run_pretrain(recipe, DATA, out, overwrite=True, callbacks=report_callbacks)
    if outcome.exit_code:
        raise Unfinished(outcome.sentence, outcome.exit_code)
    return evaluate_knn(str(out), DATA), evaluate_linear(str(out), DATA)


def analyze_demo(out: Path, data: str) -> None:
    """Fusion weights, frequencies and probes of each layer, for the run's report."""
    from lamina.analyze.session import AnalysisSession

    for name, options in (
        ("layers", OutputOptions()),
        ("frequency", FrequencyOptions(data=data)),
        ("depth", LayerProbesOptions(data=data)),
    ):
        AnalysisSession(analysis(name), [str(out)], options).run("lamina demo")


def demo(out: Path = Path("runs/demo"), seed: int = 0) -> int:
    """Pre-train a small ViT with MFF on crops of photographs, evaluate it by kNN and a linear probe, and
    write its report.

    Args:
        out: Folder of the run. A run that is in it is replaced.
        seed: Random seed of the run.
    """
    from lamina.report.page import write_report
    from lamina.runs.run import Run

    started = time.perf_counter()
    results = run_demo(out, seed)
    run = Run(out)
    analyze_demo(out, results[0].data)
    write_report([out], run.report_file)
    encoders = ("trained", "untrained", "pixels")
    rows = [
        (
            {"knn": "kNN", "linear": "linear probe"}[result.protocol],
            *(f"{100 * result.chosen(name).top1:.1f} %" for name in encoders),
        )
        for result in results
    ]
    console.print()
    print_table(("test top-1", "trained", "untrained", "raw pixels"), rows, gap=3)
    seconds = time.perf_counter() - started
    say(f"\n{len(results[0].classes)} photographs, {results[0].n_test} test crops; {seconds:.0f} s in all")
    say(f"report: {run.report_file.resolve()}")
    return 0
