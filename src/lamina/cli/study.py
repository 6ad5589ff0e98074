"""The verbs `lamina study NAME`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, TypeVar

import tyro

from lamina.core.console import make_console
from lamina.studies.feature_bias import feature_bias
from lamina.studies.fusion import fusion
from lamina.studies.options import StudyOptions
from lamina.studies.pair import pair
from lamina.studies.run import Study, run_study

T = TypeVar("T")
Flat = Annotated[T, tyro.conf.arg(name="")]

QUICK = StudyOptions()

console = make_console(soft_wrap=True)


def study_bias(out: Path, data: str = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """Which layers pixels, a teacher's features and labels ask for: weights, norm shares, spectra.

    Called again, it goes on where it was.

    Args:
        out: Folder of the study.
        data: Labelled images, as the evaluations take them.
        options: Size, seeds, network.
    """
    return _run(feature_bias, data, out, options)


def study_pair(out: Path, data: str = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """MAE against MAE + MFF, PixMIM against PixMIM + MFF: probes over epochs, spectrum, curvature.

    Called again, it goes on where it was.

    Args:
        out: Folder of the study.
        data: Labelled images, as the evaluations take them.
        options: Size, seeds, network.
    """
    return _run(pair, data, out, options)


def study_fusion(out: Path, data: str = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """Where to fuse and how: sets of blocks, projections, pooling, each against plain MAE.

    Called again, it goes on where it was.

    Args:
        out: Folder of the study.
        data: Labelled images, as the evaluations take them.
        options: Size, seeds, network.
    """
    return _run(fusion, data, out, options)


def _run(study: Study, data: str, out: Path, options: StudyOptions) -> int:
    command = shlex.join(["lamina", *sys.argv[1:]])
    outcome = run_study(
        study, data, out, options, say=lambda line: console.print(line, markup=False), command=command
    )
    if outcome.page is not None:
        console.print(outcome.page.read_text(encoding="utf-8"), markup=False)
        console.print(f"page {outcome.page}", markup=False)
    return outcome.exit_code
