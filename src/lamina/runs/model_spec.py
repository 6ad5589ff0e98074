"""How models are named: RUN, RUN@STEP, RUN/checkpoints/step-N, a weights file, timm/NAME, untrained:MODEL."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.text import printable
from lamina.runs.run import Run
from lamina.train import checkpoint

UNTRAINED = "untrained:"
TIMM = "timm/"
_STEP = re.compile(r"(?P<run>.+)@(?P<step>\d+)")
_FOLDER = re.compile(r"step-([0-9]+)")


@dataclass(frozen=True)
class ModelSpec:
    """A model's name, taken apart. Nothing is opened; whether there is such a file or timm model is not
    known yet."""

    text: str
    """As it was given."""
    untrained: bool
    """Whether the same network before its training is meant."""
    name: str
    """The text without `untrained:`."""
    path: Path
    """The name as a path, with ~ expanded."""
    run: Run | None
    """The run whose weights are named, at whatever step; None where there is no such run, and of
    `untrained:RUN`, which has none of its weights (`parse_model(spec.name).run` is that run)."""
    step: int | None
    """The step that is named; None for the newest, and where no step was named."""

    @property
    def timm_name(self) -> str:
        """The name as timm knows it, should it be one of timm's."""
        return self.name.removeprefix(TIMM)

    @property
    def short_name(self) -> str:
        """The last part of the path, or RUN@STEP of a checkpoint; `untrained:` goes before either."""
        folder = checkpoint_folder(Path(self.name))
        end = Path(self.name).name or self.name
        if folder is not None:
            end = f"{folder.parent.parent.name}@{folder.name.removeprefix('step-')}"
        return f"{UNTRAINED}{end}" if self.untrained else end


def parse_model(spec: str | Path) -> ModelSpec:
    """Take the name of a model apart.

    A path that exists is taken as it is, so that a run whose folder is called x@3 is that run, and not step 3
    of x.
    """
    text = str(spec)
    name = text.removeprefix(UNTRAINED)
    path = Path(name).expanduser()
    folder, step = _run_and_step(name, path)
    run = Run(folder)
    found = text == name and run.exists()
    return ModelSpec(text, text != name, name, path, run if found else None, step if found else None)


def locate_step(spec: str | Path) -> tuple[Path, int]:
    """The run folder and the step that `spec` names; the newest good checkpoint where it names no step.

    Raises:
        LaminaError: where there is no such run, or it has no checkpoint yet.
    """
    folder, step = _run_and_step(str(spec), Path(spec).expanduser())
    run = Run(folder)
    run.recipe()  # raises where this is no run
    if step is not None:
        return folder, step
    newest = checkpoint.newest_good(run.checkpoints, lambda line: print(printable(line), file=sys.stderr))
    if newest is None:
        raise LaminaError(f"{run.path} has no checkpoint yet; wait for the first, or train with --resume")
    return run.path, int(newest.name.removeprefix("step-"))


def checkpoint_folder(path: Path) -> Path | None:
    """The folder RUN/checkpoints/step-N where `path` is that, or the weights file in it."""
    folder = path.parent if path.name == checkpoint.MODEL else path
    is_one = folder.parent.name == "checkpoints" and _FOLDER.fullmatch(folder.name) is not None
    return folder if is_one else None


def short_names(specs: Sequence[str]) -> dict[str, str]:
    """Short names that tell models apart: the last part of each path, or all of it where two are alike; what
    is untrained says so."""
    ends = [parse_model(spec).short_name for spec in specs]
    if len(set(specs)) < len(specs):
        raise LaminaError("a model is named twice; name each once")
    return {(end if ends.count(end) == 1 else spec): spec for end, spec in zip(ends, specs, strict=True)}


def _run_and_step(name: str, path: Path) -> tuple[Path, int | None]:
    if (folder := checkpoint_folder(path)) is not None:
        return folder.parent.parent, int(folder.name.removeprefix("step-"))
    match = _STEP.fullmatch(name)
    if match is not None and not path.exists():
        return Path(match["run"]).expanduser(), int(match["step"])
    return path, None
