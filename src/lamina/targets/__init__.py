"""What is predicted at the hidden patches."""

from lamina.targets.pixels import Pixels, TargetOptions

__all__ = ["Pixels", "TargetOptions"]
