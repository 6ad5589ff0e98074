"""Scores of probes as the report shows them: their titles, and the rows that were chosen."""

from __future__ import annotations

from typing import Any

from lamina.evaluate.results import ENCODERS, Row
from lamina.evaluate.score import Score
from lamina.report.notes import MALFORMED

PROTOCOLS = {"knn": "Nearest neighbours (kNN)", "linear": "Linear probe"}


def title_of(score: Score) -> str:
    """Protocol, data, and the settings that differ."""
    variant = f" ({score.variant})" if score.variant else ""
    return f"{PROTOCOLS.get(score.protocol, score.protocol)} on {score.data}{variant}"


def chosen_rows(score: Score) -> list[Row]:
    """One row for each encoder, the trained one first."""
    best = {row.encoder: row for row in score.rows if row.chosen}
    return [best[name] for name in sorted(best, key=rank)]


def rank(encoder: str) -> tuple[int, str]:
    """The order in which encoders are shown."""
    return (ENCODERS.index(encoder) if encoder in ENCODERS else len(ENCODERS), encoder)


def read_score(content: Any, name: str, notes: list[str]) -> Score | None:
    """A result file's content as a score; None, with a note, where it is not one."""
    try:
        return Score.of(content)
    except MALFORMED:
        if content is not None:
            notes.append(f"results/{name}.json is not a result of an evaluation and was left out")
        return None
