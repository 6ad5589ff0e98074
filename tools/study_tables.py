"""The tables of a study, computed again from its result.json.

    python tools/study_tables.py docs/studies/pair
    python tools/study_tables.py docs/studies/downstream-doom/table

result.json holds the score of each model and seed, so the files of single runs, which `lamina study` and
`lamina evaluate all` write beside it, are not kept in the repository. Means and intervals are computed by the
same functions that write the pages. A page that was written before shares had intervals on the logit scale
shows the same means with slightly other intervals.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from lamina.core.text import markdown_table
from lamina.data.sources import ArraySource
from lamina.evaluate.compare.table import Comparison
from lamina.evaluate.score import Score
from lamina.studies.feature_bias import feature_bias
from lamina.studies.fusion import fusion
from lamina.studies.options import FORMER_NAMES, StudyOptions
from lamina.studies.pair import pair

STUDIES = {study.name: study for study in (feature_bias, fusion, pair)}


def of_comparison(result: dict[str, Any]) -> list[str]:
    """The table of `lamina evaluate all`."""
    scores = {name: [Score.of(score) for score in each] for name, each in result["scores"].items()}
    return [markdown_table(*Comparison.of(scores).table())]


def of_study(result: dict[str, Any]) -> list[str]:
    """The tables of `lamina study`."""
    settings = result["settings"]
    encoder = next(iter(settings["arms"].values()))["encoder"]
    one = ArraySource(
        torch.zeros(1, encoder["in_chans"], *encoder["image_size"], dtype=torch.uint8), ["0"], [0], ["0"]
    )
    names = {former: name for name, former in FORMER_NAMES.items()}
    options = StudyOptions(**{names.get(name, name): value for name, value in settings["options"].items()})
    plan = STUDIES[result["study"]].plan(options, one, settings["steps"], Path())
    return [table.markdown() for table in plan.report(result["measured"], settings).tables]


def tables(folder: Path) -> list[str]:
    """The tables of a folder below docs/studies, as Markdown."""
    result = json.loads((folder / "result.json").read_text())
    return of_study(result) if "study" in result else of_comparison(result)


if __name__ == "__main__":
    print(*(table for folder in sys.argv[1:] for table in tables(Path(folder))), sep="\n\n")
