"""A score: one model by one protocol with one seed, as a value and as a file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lamina.core.errors import LaminaError
from lamina.core.plain_files import DamagedFile
from lamina.core.records import read_object, write_json
from lamina.evaluate.confusion import BALANCED, MAJORITY, Confusion
from lamina.evaluate.results import Row, share, table
from lamina.features.options import FeatureOptions
from lamina.features.table import Setting, Timing
from lamina.interop.backbone import Backbone

KIND = "score"
MEAN_AP = "mAP"
"""The metric of images with several labels each: the mean of the labels' average precisions."""
PREVALENCE = "mean prevalence"
"""The mean over labels of the share of test images that have them: the mAP of scores that say nothing."""
OF_LABEL = "average precision of "
"""It stands before the name of a label."""


@dataclass(frozen=True)
class Score:
    """The result of one protocol for one model and one seed.

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
    seconds: float = field(default=0.0, compare=False)
    variant: str = ""
    """Settings that differ from the protocol's usual ones, as text: recipe, length and other fields of it,
    features, kinds and number of images; "" for the usual ones."""

    confusion: Confusion | None = None
    """The confusion matrix of a protocol that classifies, summed over its draws."""

    images: str = ""
    """Digest of the images (`lamina.data.sources.images_digest`); "" where it is not known."""

    classes: tuple[str, ...] = ()
    """The names of the classes, for a probe of frozen features."""
    rows: tuple[Row, ...] = ()
    """Of such a probe: its rows, of which the training set chose one for each encoder; the score is that of
    the trained encoder's."""
    selection: str = ""
    """The images on which rows and settings were chosen."""
    timing: Timing | None = field(default=None, compare=False)
    """How long the features of both parts took."""

    @classmethod
    def of_rows(
        cls,
        rows: tuple[Row, ...],
        majority: float | None = None,
        metric: str = "top1",
        **others: Any,
    ) -> Score:
        """The score of a probe: the row of the trained encoder that the training set chose.

        Args:
            rows: see `Score.rows`.
            majority: the share of the largest class among the test images.
            metric: what the rows' `top1` is: "top1", or "mAP" for images with several labels.
            others: the other fields.
        """
        chosen = [row for row in rows if row.chosen] or list(rows)
        row = next((row for row in chosen if row.encoder == "trained"), chosen[0])
        timing = others.get("timing")
        return cls(
            metric=metric,
            value=row.top1,
            interval=row.interval,
            rows=rows,
            more=_numbers(row, majority),
            seconds=0.0 if timing is None else timing.seconds,
            **others,
        )

    def chosen(self, encoder: str = "trained") -> Row:
        """The row of `encoder` ("trained", "untrained" or "pixels") that the training set chose."""
        for row in self.rows:
            if row.encoder == encoder and row.chosen:
                return row
        held = ", ".join(dict.fromkeys(row.encoder for row in self.rows))
        raise LaminaError(f"this result has no encoder {encoder!r}; it has {held}")

    @property
    def metric_name(self) -> str:
        """The metric as readers call it."""
        return {"top1": "top-1 accuracy", MEAN_AP: "mean average precision"}.get(self.metric, self.metric)

    @property
    def way(self) -> str:
        """The former name of `variant`."""
        warnings.warn("Score.way is now called Score.variant", DeprecationWarning, stacklevel=2)
        return self.variant

    @property
    def gain(self) -> float:
        """Accuracy of the trained encoder minus that of the better baseline, each as chosen."""
        baselines = [row.top1 for row in self.rows if row.chosen and row.encoder != "trained"]
        return self.chosen().top1 - max(baselines, default=0.0)

    @property
    def majority(self) -> float | None:
        """Share of the largest class among the test images: the accuracy of one answer to all of them."""
        return self.more.get(MAJORITY)

    @property
    def prevalence(self) -> float | None:
        """The mean prevalence of the labels among the test images, where these have several each."""
        return self.more.get(PREVALENCE)

    @property
    def of_labels(self) -> dict[str, float]:
        """The average precision of each label, by a text that names it."""
        return {name: value for name, value in self.more.items() if name.startswith(OF_LABEL)}

    def table(self) -> list[tuple[str, ...]]:
        """The rows of a probe as text, with a header; a star marks what the training set chose."""
        return table(f"{'kNN' if self.protocol == 'knn' else self.protocol} {self.metric}", self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and text; what probes alone have is left out for others."""
        fields = {**asdict(self), "rows": [row.to_json() for row in self.rows]}
        fields["confusion"] = None if self.confusion is None else self.confusion.to_json()
        return fields if self.rows else {name: fields[name] for name in fields if name not in _OF_PROBES}

    def save(self, path: Path) -> None:
        """Write it as JSON; the file is replaced once the new one is whole. Raises OSError."""
        write_json(path, {"kind": KIND, **self.to_json()})

    @classmethod
    def read(cls, path: Path) -> Score:
        """Read what `save` wrote, or an earlier version.

        Raises:
            LaminaError: for another file.
        """
        mend = "remove it, or choose another"
        try:
            fields = read_object(path, links=True, mend=mend)
            if not is_score(fields):
                raise KeyError
            return cls.of(fields)
        except DamagedFile:
            raise
        except (OSError, ValueError, KeyError, TypeError):
            raise LaminaError(f"{path} is no score that lamina wrote; {mend}") from None

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Score:
        """From plain lists, numbers and text, as in JSON; also as earlier versions wrote them."""
        given = {name: value for name, value in fields.items() if name not in ("kind", "content_sha256")}
        if "way" in given:
            given["variant"] = given.pop("way")
        rows, timing = tuple(Row.of(row) for row in given.pop("rows", ())), given.pop("timing", None)
        read: dict[str, Any] = {
            "notes": tuple(str(note) for note in given.pop("notes", None) or ()),
            "classes": tuple(given.pop("classes", None) or ()),
            "timing": None if timing is None else Timing(**timing),
        }
        if not isinstance(given.get("step"), int | None):
            raise ValueError("a step is a whole number")
        read |= {name: int(given.pop(name, None) or 0) for name in ("n_train", "n_test", "seed")}
        if "metric" not in given:  # a probe, before it was a score
            if not rows:
                raise ValueError("a probe has rows")
            return cls.of_rows(rows, **{**_EARLIER, "variant": _features_of(rows), **given, **read})
        low_high = given.pop("interval")
        interval = None if low_high is None else (float(low_high[0]), float(low_high[1]))
        found = Confusion.read(given.pop("confusion", None))
        given["value"] = share(given["value"])
        return cls(**{**given, **read, "interval": interval, "confusion": found, "rows": rows})


_OF_PROBES = ("classes", "rows", "selection", "timing")
_EARLIER = {"model": "", "data": "", "step": None}
"""Fields that files of the first versions lack for a probe."""


def _features_of(rows: Sequence[Row]) -> str:
    """The variant of a probe that does not say it: earlier versions named unusual features in their rows."""
    other = dict.fromkeys(row.features for row in rows)
    return "" if {*FeatureOptions.features, "pixels"}.issuperset(other) else f"features {' '.join(other)}"


def is_score(content: Any) -> bool:
    """Whether the content of a JSON file is a score, or the result of a probe of an earlier version."""
    return isinstance(content, Mapping) and (content.get("kind") == KIND or "rows" in content)


def model_and_step(backbone: Backbone) -> dict[str, Any]:
    """The fields `model` and `step` of a score of this backbone."""
    origin = backbone.origin
    if origin is None:
        return {"model": "a backbone", "step": None}
    return {"model": origin.name, "step": origin.step}


def scores_of_rows(score: Score) -> tuple[Score, ...]:
    """The scores of a probe for the trained encoder, one for each kind of features and each pool.

    `variant` names them; nothing is chosen among them.
    """
    return tuple(
        replace(
            score,
            value=row.top1,
            interval=row.interval,
            settings={**row.settings, "features": row.features, "pool": row.pool},
            variant=f"{row.features}, {row.pool}",
            more=_numbers(row, score.majority),
            confusion=row.confusion,
            classes=(),
            rows=(),
            selection="",
            timing=None,
        )
        for row in score.rows
        if row.encoder == "trained"
    )


def _numbers(row: Row, majority: float | None) -> dict[str, float]:
    numbers = {BALANCED: row.balanced, MAJORITY: majority}
    return {**{name: value for name, value in numbers.items() if value is not None}, **row.more}


class Unfinished(LaminaError):
    """A training that was interrupted or stopped; everything is saved, and the exit code says how."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code
