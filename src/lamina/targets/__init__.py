"""What is predicted at the hidden patches."""

from lamina.targets.hog import HOG
from lamina.targets.pixels import Pixels, TargetOptions

__all__ = ["HOG", "Pixels", "TargetOptions"]
