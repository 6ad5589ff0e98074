"""What a run saves in order to go on exactly, and how it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError
from lamina.train.checkpoint import newest_good, remove_unfinished, steps
from lamina.train.distributed import Ranks, from_main, on_main
from lamina.train.options import Plan, TrainOptions


def find_start(folder: Path, resume: bool, ranks: Ranks, say: Callable[[str], None]) -> Path | None:
    """The checkpoint to go on from, the same on all ranks (they share the file system); None: a new run.

    Rank 0 looks, since verifying reads every byte; `say` gets a line for each damaged checkpoint.
    """
    found = on_main(ranks, lambda: _look(folder, resume, say))
    step = from_main(-1 if found is None else found, ranks)
    return None if step < 0 else folder / f"step-{step}"


def _look(folder: Path, resume: bool, say: Callable[[str], None]) -> int | None:
    """The step to go on from; None for a new run, which needs a folder without checkpoints."""
    remove_unfinished(folder)
    if resume:
        path = newest_good(folder, say)
        return int(path.name.removeprefix("step-")) if path else None
    if found := steps(folder):
        raise LaminaError(
            f"{folder} holds a run of {found[-1]} steps; go on with --resume or start with --overwrite"
        )
    return None


def run_facts(options: TrainOptions, plan: Plan) -> dict[str, Any]:
    """What must not change on a resume, and what is good to know about a checkpoint."""
    return {
        "batch_size": options.batch_size,
        "seed": options.seed,
        "n_samples": plan.n_samples,
        "precision": options.precision,
    }


def check_facts(saved: dict[str, Any], now: dict[str, Any], say: Callable[[str], None]) -> None:
    """Refuse to go on where the sample stream would be another one; say so where it changes knowingly."""
    for name in ("batch_size", "seed"):
        if saved[name] != now[name]:
            raise LaminaError(
                f"the run was started with {name} {saved[name]}, not {now[name]}; resume with the same"
            )
    for name in ("n_samples", "precision"):
        if saved[name] != now[name]:
            say(f"{name} was {saved[name]} and is now {now[name]}: the run differs from here on")
