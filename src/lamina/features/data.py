"""Labelled images in two parts: one to choose and fit on, one to test on, once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.data.columns import encoded_name
from lamina.data.digest import names_sha256
from lamina.data.open import Spec, open_source
from lamina.data.sources import SEVERAL, Source, images_digest
from lamina.interop.backbone import Backbone
from lamina.runs.run import Run


@dataclass(frozen=True)
class LabelledData:
    """A training and a test part with the same classes.

    Raises:
        LaminaError: where a part has no labels (it says why), there is one class only, or a class of the
            test part has no training image.
    """

    name: str
    train: Source
    test: Source

    def __post_init__(self) -> None:
        """Refuse data that no probe can be evaluated on."""
        if self.several and self.test.multi_labels is not None:
            self._check_names()
            return
        for part, source in (("training", self.train), ("test", self.test)):
            if source.labels is None:
                why = f" ({source.no_labels})" if source.no_labels else ""
                raise LaminaError(
                    f"the {part} images of {self.name} have no classes, or one alone{why}; an evaluation "
                    "needs two or more: root/CLASS/..., root/train/CLASS/... beside root/val/CLASS/..., or a "
                    "table with a column of labels"
                )
        self._check_names()
        seen = set(self.train.labels or ())
        if len(seen) < 2:
            raise LaminaError(f"{self.name} has training images of {len(seen)} class; it takes two or more")
        if missing := sorted(set(self.test.labels or ()) - seen):
            unknown = printable(self.classes[missing[0]])
            raise LaminaError(f"the class {unknown!r} of {self.name} has test images but none to train on")

    def _check_names(self) -> None:
        """Raise where the two parts have other classes."""
        if extra := sorted(set(self.test.class_names) - set(self.train.class_names)):
            raise LaminaError(
                f"the class {printable(extra[0])!r} of {self.name} is missing among the training images; "
                "add or remove it"
            )
        if self.train.class_names != self.test.class_names:
            raise LaminaError(f"the classes of {self.name} differ between training and test images")

    @property
    def several(self) -> bool:
        """Whether each image has any number of labels (`Source.multi_labels`)."""
        return self.train.multi_labels is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; labels count them."""
        return self.train.class_names

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on either part: which folders they are, and what was passed over."""
        return tuple(dict.fromkeys((*self.train.notes, *self.test.notes)))

    def notes_for(self, backbone: Backbone) -> tuple[str, ...]:
        """`notes`, `trained_on`, and a note on an image size that is not that of the encoder's training."""
        resized = "" if backbone.origin is None else backbone.origin.resized
        return (*self.notes, *self.trained_on(backbone), *([resized] if resized else []))

    def trained_on(self, backbone: Backbone) -> tuple[str, ...]:
        """A note where the encoder comes from a run on the test images too: they are no part of their own."""
        if backbone.origin is None or not (run := Run(backbone.origin.name)).exists():
            return ()
        sources = (self.train,) if self.one_part else (self.train, self.test)
        facts = run.data()
        if facts.images != sum(map(len, sources)):
            return ()
        names = sorted(source.name(i) for source in sources for i in range(len(source)))
        if facts.names_sha256 != names_sha256(map(encoded_name, names)):
            return ()
        return (f"the test images are among the {len(names)} images that {run.path} was trained on",)

    @cached_property
    def images_digest(self) -> str:
        """A digest that tells these images from others of the same name."""
        return images_digest(self.train, self.test)

    @property
    def one_part(self) -> bool:
        """Whether the test images are the training images: each is classified without its own vote."""
        return self.test is self.train


def open_labelled(
    data: Spec | LabelledData, leave_one_out: bool = False, several: bool = False
) -> LabelledData:
    """The training and the test part of `data`, as `open_source` finds or makes them.

    Args:
        data: what is opened, or two opened parts.
        leave_one_out: all images of `data` are in both parts at once.
        several: take images with several labels each.

    Raises:
        LaminaError: as `LabelledData`; for two opened parts that are to be one; for images with several
            labels each where these are not taken.
    """
    found = _opened(data, leave_one_out)
    if found.several and not several:
        raise LaminaError(f"the images of {found.name} do not fit this evaluation: {SEVERAL}")
    return found


def _opened(data: Spec | LabelledData, leave_one_out: bool) -> LabelledData:
    if isinstance(data, LabelledData):
        if leave_one_out and not data.one_part:
            raise LaminaError(
                f"{data.name} has two parts; leave-one-out takes one: LabelledData(name, source, source)"
            )
        return data
    name = str(data) if isinstance(data, str | Path) else f"a {type(data).__name__}"
    if leave_one_out:
        whole = open_source(data, "all")
        return LabelledData(printable(name), whole, whole)
    return LabelledData(printable(name), open_source(data, "train"), open_source(data, "val"))
