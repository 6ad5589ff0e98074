"""What a run of `lamina pretrain` spends beside its training steps.

    python benchmarks/beside_step.py demo --steps 400
    python benchmarks/beside_step.py mae --steps 30 --batch-size 8

A run on a folder of 400 crops of photographs as PNG files, with everything that it does by default: log
rows, report (page and pictures), online evaluation, and its checkpoint at the end. Shown is the processor
time of each part on the thread that trains, beside that of the steps, and what the report's own thread and
that of the checkpoints take; what one part does inside another is counted in the inner one alone. A short
run pays for its first and its last refresh as a long one does.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import lamina
import lamina.train.loop as loop
from lamina.callbacks.bad_files import FaultMonitor
from lamina.callbacks.encoder_monitor import BiasMonitor, EncoderMonitor
from lamina.callbacks.export_encoder import EncoderExport
from lamina.callbacks.fusion_monitor import FusionMonitor
from lamina.data.open import open_source
from lamina.report.live import LiveReport
from lamina.train.run_log import RunLog
from lamina.train.saver import Saver
from lamina.train.trainer import Trainer

PARTS = {
    "steps": [(loop, "step")],
    "waiting for images": [(loop, "take_steps")],
    "online evaluation": [(EncoderMonitor, "on_start"), (EncoderMonitor, "on_log")],
    "fusion numbers": [(FusionMonitor, "on_log"), (BiasMonitor, "on_log")],
    "report: forward passes": [(LiveReport, "_look")],
    "report: drawing and page": [
        (LiveReport, "on_start"),
        (LiveReport, "on_log"),
        (LiveReport, "on_end"),
        (LiveReport, "_draw_and_write"),
    ],
    "log rows": [(RunLog, "row"), (RunLog, "step"), (FaultMonitor, "on_log")],
    "checkpoint and export": [
        (Trainer, "write"),
        (Saver, "_write"),
        (EncoderExport, "on_checkpoint"),
        (EncoderExport, "on_end"),
    ],
}
"""The functions of each part, by the module or class that holds them."""


class Account:
    """Processor seconds by part, on the training thread and on others."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[str, bool], float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = threading.local()

    def watch(self, holder: Any, name: str, part: str) -> None:
        """Count what a function takes, without what watched functions inside it take."""
        plain = getattr(holder, name)

        @functools.wraps(plain)
        def watched(*arguments: Any, **named: Any) -> Any:
            outer = getattr(self._inner, "seconds", 0.0)
            self._inner.seconds = 0.0
            started = time.thread_time()
            try:
                return plain(*arguments, **named)
            finally:
                spent = time.thread_time() - started
                training = threading.current_thread() is threading.main_thread()
                self.seconds[part, training] += spent - self._inner.seconds
                self.calls[part] += 1
                self._inner.seconds = outer + spent

        setattr(holder, name, watched)


def write_crops(folder: Path, side: int, n: int = 400) -> None:
    """PNG files of crops of photographs."""
    source = open_source(f"sample:photos?crop={side}&stride={max(8, side // 4)}&most=100")
    for i in range(0, len(source), max(1, len(source) // n)):
        picture = Image.fromarray(source.read(i).permute(1, 2, 0).numpy())
        picture.save(folder / f"{i:05d}.png")


def main() -> None:
    """Train once and print a line per part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    account = Account()
    for part, functions in PARTS.items():
        for holder, name in functions:
            if name in vars(holder):
                account.watch(holder, name, part)
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        images.mkdir()
        side = (lamina.recipe(options.recipe).encoder.image_size or (224,))[0]
        write_crops(images, side)
        lamina.pretrain(
            images,
            Path(folder) / "run",
            options.recipe,
            max_steps=options.steps,
            batch_size=options.batch_size,
            workers=0,
        )
    steps = account.seconds["steps", True]
    print(f"{options.recipe}, {options.steps} steps: {steps:.1f} s of processor time, one thread")
    for part in PARTS:
        for training in (True, False):
            seconds = account.seconds.get((part, training))
            if seconds:
                where = "training thread" if training else "own thread"
                print(f"{part}, {where}: {seconds:.2f} s, {100 * seconds / steps:.2f} % of the steps")


if __name__ == "__main__":
    main()
