"""A score: one model by one protocol with one seed, as a value and as a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.plain_files import DamagedFile
from lamina.core.records import read_object, write_json
from lamina.evaluate.confusion import BALANCED, MAJORITY, Confusion
from lamina.evaluate.result_files import result_file
from lamina.evaluate.results import ProbeResult, Row
from lamina.features.table import Setting
from lamina.interop.backbone import Backbone
from lamina.runs.run import Run

KIND = "score"


@dataclass(frozen=True)
class Score:
    """What one protocol says of one model.

    `value` is a share in [0, 1] (an mCE may be more). `interval` is its 95 % interval over the choice of test
    images alone, None where none is known. `more` are further numbers by name.
    """

    protocol: str
    model: str
    step: int | None
    data: str
    metric: str
    value: float
    interval: tuple[float, float] | None
    n_train: int
    n_test: int
    seed: int
    settings: dict[str, Setting] = field(default_factory=dict)
    more: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    way: str = ""
    """What was asked for that makes it another number of the same protocol, for people: recipe, length and
    other fields of it, features, kinds and number of images; "" where all is as usual."""

    confusion: Confusion | None = None
    """Of a protocol that classifies: which classes the test images were taken for, in all draws."""

    images: str = ""
    """Digest of the images (`result_files.images_digest`); "" where it is not known."""

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        found = None if self.confusion is None else self.confusion.to_json()
        return {**asdict(self), "confusion": found}

    def save(self, path: Path) -> None:
        """Write it as JSON; the file is replaced once the new one is whole. Raises OSError."""
        write_json(path, {"kind": KIND, **self.to_json()})

    @classmethod
    def read(cls, path: Path) -> Score:
        """Read what `save` wrote.

        Raises:
            LaminaError: for another file.
        """
        mend = "remove it, or choose another"
        try:
            fields = read_object(path, links=True, mend=mend)
            if fields.pop("kind") != KIND:
                raise KeyError
            return cls.of(fields)
        except DamagedFile:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            raise LaminaError(f"{path} is no score that lamina wrote; {mend}") from None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Score:
        """From plain lists, numbers and text, as in JSON."""
        interval = fields["interval"]
        pair = None if interval is None else (float(interval[0]), float(interval[1]))
        found = Confusion.read(fields.get("confusion"))
        return cls(**{**fields, "interval": pair, "notes": tuple(fields["notes"]), "confusion": found})


def is_score(content: Any) -> bool:
    """Whether the content of a JSON file says that it is a score."""
    return isinstance(content, Mapping) and content.get("kind") == KIND


def score_file(score: Score, newest: bool = True) -> Path | None:
    """Where the score of a run is kept, results/PROTOCOL-DATA-WAY-seedS.json with @STEP for a step that
    is not the newest; None for what is no run."""
    run = Run(score.model)
    if not run.exists():
        return None
    earlier = None if newest else score.step
    return result_file(run.results, score.protocol, score.data, score.way, score.seed, earlier, score.images)


def named(backbone: Backbone) -> dict[str, Any]:
    """The fields `model` and `step` of a score of this backbone."""
    origin = backbone.origin
    if origin is None:
        return {"model": "a backbone", "step": None}
    return {"model": origin.name, "step": origin.step}


def of_probe(result: ProbeResult) -> tuple[Score, ...]:
    """What a probe of frozen features says of the trained encoder: a score for each of features and pools.

    `way` names them; nothing is chosen among them.
    """
    timing = result.timing
    return tuple(
        Score(
            protocol=result.protocol,
            model=result.model,
            step=result.step,
            data=result.data,
            metric="top1",
            value=row.top1,
            interval=row.interval,
            n_train=result.n_train,
            n_test=result.n_test,
            seed=result.seed,
            settings={**row.settings, "features": row.features, "pool": row.pool},
            notes=result.notes,
            seconds=0.0 if timing is None else timing.seconds,
            way=f"{row.features}, {row.pool}",
            more=_balance(row, result.majority),
            confusion=row.confusion,
            images=result.images,
        )
        for row in result.rows
        if row.encoder == "trained"
    )


def _balance(row: Row, majority: float | None) -> dict[str, float]:
    numbers = {BALANCED: row.balanced, MAJORITY: majority}
    return {name: value for name, value in numbers.items() if value is not None}


class Unfinished(LaminaError):
    """A training that was interrupted or stopped; everything is saved, and the exit code says how."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
