"""What a run saves in order to go on exactly, and how it goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.train.checkpoint import remove_unfinished, steps
from lamina.train.distributed import Ranks, from_main, on_main
from lamina.train.divergence import starting_point
from lamina.train.optim_options import OptimOptions
from lamina.train.options import Plan, TrainOptions
from lamina.train.state import TrainState

Say = Callable[[str], None]


def find_start(
    folder: Path, resume: bool, options: TrainOptions, facts: dict[str, Any], ranks: Ranks, say: Say
) -> tuple[Path | None, bool]:
    """The checkpoint to go on from, the same on all ranks (they share the file system), None for the
    beginning; and whether it is one before the run diverged.

    Rank 0 looks, since verifying reads every byte; `say` gets a line for each damaged checkpoint.
    """
    found = on_main(ranks, lambda: _look(folder, resume, options, facts, say))
    path, back = (None, False) if found is None else found
    step = from_main(-1 if path is None else int(path.name.removeprefix("step-")), ranks)
    return None if step < 0 else folder / f"step-{step}", bool(from_main(int(back), ranks))


def _look(
    folder: Path, resume: bool, options: TrainOptions, facts: dict[str, Any], say: Say
) -> tuple[Path | None, bool]:
    """As `find_start`; a new run needs a folder without checkpoints."""
    remove_unfinished(folder)
    if resume:
        return starting_point(folder, options, facts, say)
    if found := steps(folder):
        raise LaminaError(
            f"{folder} holds a run of {found[-1]} steps; go on with --resume or start with --overwrite"
        )
    return None, False


def run_facts(options: TrainOptions, optim: OptimOptions, plan: Plan) -> dict[str, Any]:
    """What must not change on a resume, and what is good to know about a checkpoint."""
    return {
        "batch_size": options.batch_size,
        "seed": options.seed,
        "n_samples": plan.n_samples,
        "precision": options.precision,
        "base_lr": optim.base_lr,
        "clip_grad": optim.clip_grad,
    }


def check_facts(saved: dict[str, Any], now: dict[str, Any], say: Say) -> None:
    """Refuse to go on where the sample stream would be another one; say so where it changes knowingly."""
    for name in ("batch_size", "seed"):
        if saved[name] != now[name]:
            raise LaminaError(
                f"the run was started with {name} {saved[name]}, not {now[name]}; resume with the same"
            )
    for name in ("n_samples", "precision", "base_lr", "clip_grad"):
        if name in saved and saved[name] != now[name]:
            say(f"{name} was {saved[name]} and is now {now[name]}: the run differs from here on")


def restored_state(saved: dict[str, Any], path: Path, total_steps: int) -> TrainState:
    """How far the run of the checkpoint `path` had come; raises `LaminaError` where that makes no sense."""
    state = merge(TrainState(total_steps), {**saved, "total_steps": total_steps})
    if f"step-{state.step}" != path.name or not math.isfinite(state.seconds):
        raise LaminaError(f"the checkpoint {path} says that it is of step {state.step}; use an earlier one")
    if state.step > total_steps:
        raise LaminaError(
            f"the run is at step {state.step}, beyond the {total_steps} steps asked for; ask for more, or "
            "start a new run with another --out"
        )
    return state
