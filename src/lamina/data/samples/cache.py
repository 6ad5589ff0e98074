"""Where samples keep what they download or render."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """$LAMINA_CACHE, else `lamina` in $XDG_CACHE_HOME or ~/.cache; perhaps not there yet."""
    own = os.environ.get("LAMINA_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "lamina"
