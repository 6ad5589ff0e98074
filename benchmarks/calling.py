"""Verbs of the command line, as the studies of this folder call them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys


def call(arguments: list[str]) -> None:
    """Print it and run it; stop where it stops."""
    print("lamina", shlex.join(arguments), flush=True)
    if code := subprocess.run([sys.executable, "-m", "lamina", *arguments], check=False).returncode:
        sys.exit(code)


def call_together(commands: list[list[str]]) -> None:
    """Print them and run them at a time, each with its share of the cores; stop where one failed, once all
    have ended."""
    threads = str(max(1, (os.cpu_count() or 1) // len(commands)))
    running = []
    for arguments in commands:
        print("lamina", shlex.join(arguments), flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        running.append(subprocess.Popen([sys.executable, "-m", "lamina", *arguments], env=environment))
    codes = [process.wait() for process in running]  # a signal's is negative
    if any(codes):
        sys.exit(1)
