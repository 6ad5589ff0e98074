"""The rows of a probe's score: one for each encoder, features and pool, with its interval; table and JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from lamina.evaluate.confusion import Confusion
from lamina.features.table import Setting

ENCODERS = ("trained", "untrained", "pixels")


@dataclass(frozen=True)
class Row:
    """One encoder seen through one kind of features: its accuracy in [0, 1] on the test set; its mean average
    precision where images have several labels each (the score's `metric` is "mAP" then).

    `validation_top1` was measured on the training set alone, and `chosen` (one row per encoder) follows
    from it alone; `interval` is the 95 % interval of `top1` over the choice of test images (Wilson's; of a
    mean average precision by resampling).
    """

    encoder: str
    features: str
    pool: str
    settings: dict[str, Setting]
    top1: float
    interval: tuple[float, float]
    validation_top1: float | None
    chosen: bool = False
    balanced: float | None = None
    """Balanced accuracy: the mean over classes of the share of their test images that is right."""
    confusion: Confusion | None = None
    """The confusion matrix of a chosen row."""
    more: dict[str, float] = field(default_factory=dict)
    """Where images have several labels: the mean prevalence and the average precision of each label."""

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text."""
        found = None if self.confusion is None else self.confusion.to_json()
        fields = {**asdict(self), "confusion": found}
        return fields if self.more else {name: fields[name] for name in fields if name != "more"}

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Row:
        """From plain lists, numbers and text, as in JSON; earlier versions say less of a row."""
        low, high = fields.get("interval") or (fields["top1"], fields["top1"])
        validation, balanced = fields.get("validation_top1"), fields.get("balanced")
        return cls(
            encoder=str(fields["encoder"]),
            features=str(fields.get("features", "")),
            pool=str(fields.get("pool", "")),
            settings=dict(fields.get("settings") or {}),
            top1=share(fields["top1"]),
            interval=(share(low), share(high)),
            validation_top1=None if validation is None else share(validation),
            chosen=fields.get("chosen") is True,
            balanced=None if balanced is None else share(balanced),
            confusion=Confusion.read(fields.get("confusion")),
            more={str(name): share(value) for name, value in (fields.get("more") or {}).items()},
        )

    @property
    def label(self) -> str:
        """Trained, untrained or raw pixels, and which features of it."""
        name = encoder_name(self.encoder)
        return name if self.encoder == "pixels" else f"{name} · {self.features} · {self.pool}"


def encoder_name(encoder: str) -> str:
    """What readers call one of `ENCODERS`."""
    return "raw pixels" if encoder == "pixels" else encoder


def share(value: Any) -> float:
    """A finite number; raises `ValueError` for others."""
    if not math.isfinite(number := float(value)):
        raise ValueError("a share must be finite")
    return number


def table(name: str, rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """A header, in which `name` says what the accuracy is, and one line of strings per row; a star marks what
    the training set chose."""
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
    return [header, *(_cells(row) for row in rows)]


def mark_chosen(rows: list[Row]) -> tuple[Row, ...]:
    """Mark, per encoder, the row with the best validation accuracy; the first of equals."""
    best: dict[str, Row] = {}
    for row in rows:
        if row.encoder not in best or _validated(row) > _validated(best[row.encoder]):
            best[row.encoder] = row
    return tuple(
        replace(row, chosen=True) if row is best[row.encoder] else replace(row, chosen=False, confusion=None)
        for row in rows
    )


def _validated(row: Row) -> float:
    return -math.inf if row.validation_top1 is None else row.validation_top1


def _cells(row: Row) -> tuple[str, ...]:
    low, high = row.interval
    settings = ", ".join(f"{name}={_short(value)}" for name, value in row.settings.items())
    return (
        encoder_name(row.encoder),
        row.features,
        row.pool,
        f"{100 * row.top1:.1f} %",
        f"{100 * low:.1f} - {100 * high:.1f}",
        "" if row.balanced is None else f"{100 * row.balanced:.1f} %",
        "" if row.validation_top1 is None else f"{100 * row.validation_top1:.1f} %",
        settings,
        "*" if row.chosen else "",
    )


def _short(value: Setting) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
