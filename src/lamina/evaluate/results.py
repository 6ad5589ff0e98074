"""What an evaluation found: a row for each encoder, features and pool, with its interval; table and JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.records import read_object, write_json
from lamina.evaluate.confusion import Confusion
from lamina.features.table import Protocol, Setting, Timing

ENCODERS = ("trained", "untrained", "pixels")


@dataclass(frozen=True)
class Row:
    """One encoder seen through one kind of features: its accuracy in [0, 1] on the test set.

    `validation_top1` was measured on the training set alone, and `chosen` (one row per encoder) follows
    from it alone; `interval` is the 95 % Wilson interval of `top1`.
    """

    encoder: str
    features: str
    pool: str
    settings: dict[str, Setting]
    top1: float
    interval: tuple[float, float]
    validation_top1: float
    chosen: bool = False
    balanced: float | None = None
    """Balanced accuracy: the mean over classes of the share of their test images that is right."""
    confusion: Confusion | None = None
    """Of a chosen row: which classes the test images were taken for."""


@dataclass(frozen=True)
class ProbeResult:
    """The rows of one protocol on one data set, and what they were measured on."""

    protocol: Protocol
    model: str
    data: str
    step: int | None
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    seed: int
    selection: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    way: str = ""
    """Features and settings of the sweep that differ from the usual ones, for people; "" where none does."""
    majority: float | None = None
    """Share of the largest class among the test images: the accuracy of one answer to all of them."""
    images: str = ""
    """Digest of the images (`result_files.images_digest`); "" of results of earlier versions."""
    timing: Timing | None = field(default=None, compare=False)
    """How long the features of both parts took."""

    def chosen(self, encoder: str = "trained") -> Row:
        """The row of `encoder` ("trained", "untrained" or "pixels") that the training set chose."""
        for row in self.rows:
            if row.encoder == encoder and row.chosen:
                return row
        held = ", ".join(dict.fromkeys(row.encoder for row in self.rows))
        raise LaminaError(f"this result has no encoder {encoder!r}; it has {held}")

    @property
    def gain(self) -> float:
        """Accuracy of the trained encoder minus that of the better baseline, each as chosen."""
        baselines = [row.top1 for row in self.rows if row.chosen and row.encoder != "trained"]
        return self.chosen().top1 - max(baselines, default=0.0)

    def table(self) -> list[tuple[str, ...]]:
        """A header and one line of strings per row; a star marks what the training set chose."""
        name = {"knn": "kNN top1", "linear": "linear top1"}[self.protocol]
        header = (
            "encoder",
            "features",
            "pool",
            name,
            "95 % interval",
            "balanced",
            "validation",
            "settings",
            "chosen",
        )
        return [header, *(_cells(row) for row in self.rows)]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, ready for JSON."""
        rows = [
            {**asdict(row), "confusion": None if row.confusion is None else row.confusion.to_json()}
            for row in self.rows
        ]
        return {**asdict(self), "rows": rows}

    def save(self, path: Path) -> None:
        """Write the result as JSON (replacing the file only once the new one is whole). Raises OSError."""
        write_json(path, self.to_dict(), indent=2)

    @classmethod
    def read(cls, path: Path) -> ProbeResult:
        """Read what `save` wrote. Raises `LaminaError` where it was changed since."""
        fields = read_object(path, links=True)
        rows = [
            Row(
                **{
                    **row,
                    "interval": tuple(row["interval"]),
                    "confusion": Confusion.read(row.get("confusion")),
                }
            )
            for row in fields["rows"]
        ]
        tuples = {"rows": tuple(rows), "classes": tuple(fields["classes"]), "notes": tuple(fields["notes"])}
        timing = fields.get("timing")
        return cls(**{**fields, **tuples, "timing": None if timing is None else Timing(**timing)})


def mark_chosen(rows: list[Row]) -> tuple[Row, ...]:
    """Mark, per encoder, the row with the best validation accuracy; the first of equals."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.encoder not in best or row.validation_top1 > best[row.encoder].validation_top1:
            best[row.encoder] = row
    return tuple(
        replace(row, chosen=True) if row is best[row.encoder] else replace(row, chosen=False, confusion=None)
        for row in rows
    )


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.interval
    settings = ", ".join(f"{name}={_short(value)}" for name, value in row.settings.items())
    return (
        row.encoder,
        row.features,
        row.pool,
        f"{100 * row.top1:.1f} %",
        f"{100 * low:.1f} - {100 * high:.1f}",
        "" if row.balanced is None else f"{100 * row.balanced:.1f} %",
        f"{100 * row.validation_top1:.1f} %",
        settings,
        "*" if row.chosen else "",
    )


def _short(value: Setting) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
