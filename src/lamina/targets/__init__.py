"""What is predicted at the hidden patches."""

from lamina.targets.absent import Absent
from lamina.targets.hog import HOG
from lamina.targets.options import TargetKind, TargetOptions
from lamina.targets.pixels import Pixels
from lamina.targets.teacher import Teacher
from lamina.targets.tokens import TokenIds, Tokenizer

__all__ = ["HOG", "Absent", "Pixels", "TargetKind", "TargetOptions", "Teacher", "TokenIds", "Tokenizer"]
