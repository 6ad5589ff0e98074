"""What is predicted at the hidden patches."""

from lamina.targets.hog import HOG
from lamina.targets.missing import Absent
from lamina.targets.options import TargetKind, TargetOptions
from lamina.targets.pixels import Pixels
from lamina.targets.teacher import Teacher
from lamina.targets.token_ids import TokenIds, Tokenizer

__all__ = ["HOG", "Absent", "Pixels", "TargetKind", "TargetOptions", "Teacher", "TokenIds", "Tokenizer"]
