"""What supervised training learns from beside the images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TeacherOptions:
    """A teacher for distillation."""

    teacher: str | None = None
    """Teacher whose decisions the distillation token learns: a supervised run, or timm/NAME of a classifier
    with as many classes (timm's deit_*_distilled networks have such a token). Unset: no teacher."""


@dataclass(frozen=True)
class LabelOptions(TeacherOptions):
    """Labels of supervised training: the teacher, and the classes."""

    classes: tuple[str, ...] = ()
    """Names of the classes. They are filled in from the data."""
    teacher_sha256: str | None = None
    """SHA-256 of the teacher's weights. It is filled in when the teacher is opened."""
