"""A verb of the command line, as the studies of this folder call it."""

from __future__ import annotations

import shlex
import subprocess
import sys


def call(arguments: list[str]) -> None:
    """Print it and run it; stop where it stops."""
    print("lamina", shlex.join(arguments), flush=True)
    if code := subprocess.run([sys.executable, "-m", "lamina", *arguments], check=False).returncode:
        sys.exit(code)
