"""What each corruption's function takes and gives: arrays (H, W, 3) on [0, 255]."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

Pixels = UInt8[np.ndarray, "H W 3"]
"""An 8-bit image."""
Values = Float[np.ndarray, "H W 3"]
"""The corrupted image before it is cut to [0, 255] and to whole numbers."""
