"""Scores of a comparison on disk: a file for each protocol, model and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lamina.core.plain_files import DamagedFile
from lamina.core.records import read_json, write_json
from lamina.evaluate.score import Score


def read_scores(file: Path, say: Callable[[str], None] = lambda line: None) -> tuple[Score, ...] | None:
    """The scores of an earlier call; None where there are none, and where they are damaged, which `say` is
    told: they are measured again then."""
    try:
        content = read_json(file)
        fields = content["scores"] if isinstance(content, dict) else content  # a list, before lamina 0.2
        return tuple(Score.of(each) for each in fields)
    except FileNotFoundError:
        return None
    except DamagedFile as error:
        reason = error.reason
    except (ValueError, KeyError, TypeError, AttributeError):
        reason = "it is not what lamina writes"
    say(f"{file} cannot be used ({reason}): measured again")
    return None


def write_scores(file: Path, scores: Sequence[Score]) -> None:
    """Keep them; the file is replaced once the new one is whole."""
    write_json(file, {"scores": [score.to_json() for score in scores]})
