"""The verbs `lamina study NAME`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from lamina.cli.arguments import Flat
from lamina.cli.output import say
from lamina.studies.options import StudyOptions

if TYPE_CHECKING:
    from lamina.studies.run import Study

Data = Annotated[
    str, tyro.conf.arg(help="Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample.")
]

QUICK = StudyOptions()


def study_bias(out: Path, data: Data = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """Compare the fusion weights, norm shares and spectra of models that predict pixels, a teacher's features
    and labels.

    Called again, the command continues where it stopped.

    Args:
        out: Folder of the study.
        options: Size, seeds and network of the study.
    """
    from lamina.studies.feature_bias import feature_bias

    return _run(feature_bias, data, out, options)


def study_pair(out: Path, data: Data = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """Compare MAE with MAE + MFF, and PixMIM with PixMIM + MFF: probes over epochs, spectra and curvature.

    Called again, the command continues where it stopped.

    Args:
        out: Folder of the study.
        options: Size, seeds and network of the study.
    """
    from lamina.studies.pair import pair

    return _run(pair, data, out, options)


def study_fusion(out: Path, data: Data = "sample:fashion-mnist", options: Flat[StudyOptions] = QUICK) -> int:
    """Compare sets of fused blocks, projections and poolings, each with plain MAE.

    Called again, the command continues where it stopped.

    Args:
        out: Folder of the study.
        options: Size, seeds and network of the study.
    """
    from lamina.studies.fusion import fusion

    return _run(fusion, data, out, options)


def _run(study: Study, data: str, out: Path, options: StudyOptions) -> int:
    from lamina.studies.run import run_study

    command = shlex.join(["lamina", *sys.argv[1:]])
    outcome = run_study(study, data, out, options, say=say, command=command)
    if outcome.page is not None:
        say(outcome.page.read_text(encoding="utf-8"))
        say(f"page {outcome.page}")
    return outcome.exit_code
