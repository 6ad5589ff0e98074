"""The verbs `lamina study NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated

import tyro

from lamina.cli.arguments import Flat
from lamina.cli.output import say, typed_command
from lamina.cli.parse import parse
from lamina.studies.options import StudyOptions

QUICK = StudyOptions()
STUDIES = {
    "feature-bias": "Compare the fusion weights, norm shares and spectra of models that predict pixels, a "
    "teacher's features and labels.",
    "pair": "Compare MAE with MAE + MFF, and PixMIM with PixMIM + MFF: probes over epochs, spectra and "
    "curvature.",
    "fusion": "Compare sets of fused blocks, projections and poolings, each with plain MAE.",
}
"""What each does; its module and its function are called like it."""


@dataclass(frozen=True)
class StudyArguments:
    """The arguments of every study."""

    out: Path
    """Folder of the study."""
    data: Annotated[
        str, tyro.conf.arg(help="Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., or a sample.")
    ] = "sample:fashion-mnist"
    options: Flat[StudyOptions] = QUICK
    """Size, seeds and network of the study."""


def study(name: str, args: Sequence[str]) -> int:
    """Run one study, or continue it where it stopped; returns the exit code, raises `LaminaError`."""
    about = {"__doc__": f"{STUDIES[name]}\n\nCalled again, the command continues where it stopped."}
    kind = make_dataclass("Arguments", (), bases=(StudyArguments,), namespace=about, frozen=True)
    given: StudyArguments = parse(kind, args, f"lamina study {name}")

    from lamina.studies.run import run_study

    stem = name.replace("-", "_")
    run = getattr(import_module(f"lamina.studies.{stem}"), stem)
    outcome = run_study(run, given.data, given.out, given.options, say=say, command=typed_command())
    if outcome.page is not None:
        say(outcome.page.read_text(encoding="utf-8"))
        say(f"page {outcome.page}")
    return outcome.exit_code
