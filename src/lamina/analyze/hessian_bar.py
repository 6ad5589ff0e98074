"""How a Hessian analysis looks while it runs: a bar on a terminal, a line for each mini-batch elsewhere."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class HessianBar:
    """On stderr; told of each product (`analyze_hessian`, progress). `total` is mini-batches times models."""

    def __init__(self, total: int) -> None:
        console = Console(stderr=True, highlight=False)
        columns = (
            TextColumn("mini-batch"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self.total = total
        self._terminal = console.is_terminal
        self._progress = Progress(*columns, console=console, transient=True, disable=not self._terminal)
        self._task = self._progress.add_task("", total=total, said="")
        self._begun: list[tuple[str, int]] = []
        self._said = ""
        self._started = time.perf_counter()

    def __enter__(self) -> HessianBar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if kind is None:
            self._tell()

    def __call__(self, name: str, batch: int, products: int, residual: float) -> None:
        """A product is done."""
        if (name, batch) not in self._begun:
            self._tell()
            self._begun.append((name, batch))
        left = "" if math.isnan(residual) else f", residual {residual:.1e}"
        self._said = f"{name}: {products} products{left}"
        self._progress.update(self._task, completed=len(self._begun) - 1, said=self._said)

    def _tell(self) -> None:
        """A line on the mini-batch before, where there is no terminal."""
        if self._begun and not self._terminal:
            seconds = time.perf_counter() - self._started
            done = f"mini-batch {len(self._begun)} of {self.total}"
            print(f"{done}  {self._said.partition(',')[0]}  {seconds:.0f} s", file=sys.stderr, flush=True)
