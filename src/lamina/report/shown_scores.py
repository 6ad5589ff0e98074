"""Results of evaluations as the report shows them: each protocol's rows, and the chosen ones side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lamina.evaluate.confusion import Confusion
from lamina.features.options import FeatureOptions
from lamina.features.table import Timing
from lamina.report.format import setting

ENCODERS = ("trained", "untrained", "pixels")
PROTOCOLS = {"knn": "Nearest neighbours (kNN)", "linear": "Linear probe"}


@dataclass(frozen=True)
class ShownRow:
    """One evaluated combination of encoder and features; `chosen` on the training split, per encoder."""

    encoder: str
    features: str
    pool: str
    settings: str
    top1: float
    low: float
    high: float
    validation: float | None
    chosen: bool
    balanced: float | None = None
    confusion: Confusion | None = None

    @property
    def label(self) -> str:
        """Trained, untrained or raw pixels, and which features of it."""
        if self.encoder == "pixels":
            return "raw pixels"
        return f"{self.encoder} · {self.features} · {self.pool}"


@dataclass(frozen=True)
class ShownResult:
    """The result file of one protocol on one data set."""

    protocol: str
    data: str
    step: int | None
    n_train: int | None
    n_test: int | None
    n_classes: int
    rows: Sequence[ShownRow]
    notes: Sequence[str] = ()
    seed: int = 0
    way: str = ""
    """Features and settings that differ from the usual ones."""
    majority: float | None = None
    """Share of the largest class among the test images."""
    images: str = ""
    """Digest of the images; "" of results of earlier versions."""
    timing: str = ""
    """How long the features took, and the share of it that was spent waiting for images."""

    @property
    def title(self) -> str:
        way = f" ({self.way})" if self.way else ""
        return f"{PROTOCOLS.get(self.protocol, self.protocol)} on {self.data}{way}"

    @property
    def chosen(self) -> list[ShownRow]:
        """One row for each encoder, the trained one first."""
        best = {row.encoder: row for row in self.rows if row.chosen}
        names = sorted(best, key=lambda name: ENCODERS.index(name) if name in ENCODERS else len(ENCODERS))
        return [best[name] for name in names]


def read_result(content: Any, name: str, notes: list[str]) -> ShownResult | None:
    """A result file's content as an `ShownResult`; None, with a note, where it is not one."""
    try:
        return ShownResult(
            protocol=str(content["protocol"]),
            data=str(content.get("data", "")),
            step=_whole(content.get("step")),
            n_train=_whole(content.get("n_train")),
            n_test=_whole(content.get("n_test")),
            n_classes=len(content.get("classes") or ()),
            rows=[_row(row) for row in content["rows"]],
            notes=[str(note) for note in content.get("notes") or ()],
            seed=_whole(content.get("seed")) or 0,
            way=_way(content),
            majority=None if content.get("majority") is None else _share(content["majority"]),
            images=str(content.get("images", "")),
            timing=_timing(content.get("timing")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        if content is not None:
            notes.append(f"results/{name}.json is not a result of an evaluation and was left out")
        return None


def _row(row: Mapping[str, Any]) -> ShownRow:
    top1 = _share(row["top1"])
    low, high = row.get("interval") or (top1, top1)
    validation = row.get("validation_top1")
    settings, balanced = row.get("settings") or {}, row.get("balanced")
    return ShownRow(
        encoder=str(row["encoder"]),
        features=str(row.get("features", "")),
        pool=str(row.get("pool", "")),
        settings=", ".join(f"{key} {setting(value)}" for key, value in settings.items()),
        top1=top1,
        low=_share(low),
        high=_share(high),
        validation=None if validation is None else _share(validation),
        chosen=row.get("chosen") is True,
        balanced=None if balanced is None else _share(balanced),
        confusion=Confusion.read(row.get("confusion")),
    )


def _way(content: Mapping[str, Any]) -> str:
    """Settings that differ from the defaults; in files of earlier versions, the features of the rows."""
    if "way" in content:
        return str(content["way"])
    usual = {*FeatureOptions.features, "pixels"}
    other = dict.fromkeys(str(row.get("features", "")) for row in content["rows"])
    return "" if usual.issuperset(other) else f"features {' '.join(other)}"


def _timing(timing: Mapping[str, Any] | None) -> str:
    return "" if timing is None else str(Timing(**timing))


def _share(value: Any) -> float:
    share = float(value)
    if not math.isfinite(share):
        raise ValueError("a share must be finite")
    return share


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
