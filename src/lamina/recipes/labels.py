"""What supervised training learns from beside the images."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LabelOptions:
    """Classes, and a teacher that judges the images too."""

    classes: tuple[str, ...] = ()
    """Names of the classes; filled in from the data."""
    teacher: str | None = None
    """A supervised run, or timm/NAME of as many classes, whose decisions the distillation token learns
    (timm's deit_*_distilled networks have one); unset means none."""
    teacher_sha256: str | None = None
    """Which teacher it was; filled in when it is opened."""
