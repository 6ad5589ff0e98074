"""What a run is on disk: one folder, its files, and how a method comes back from it."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from lamina.core.config import differences, merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.files import replace_text
from lamina.core.records import read_yaml, to_yaml, write_json
from lamina.core.text import printable, without_secrets
from lamina.data.options import EARLIER_DECODING
from lamina.data.sources import Version
from lamina.mim import MIM, mim_of
from lamina.recipes.build import Task, build_task
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import DataFacts
from lamina.runs.resumable_folder import FolderOnMain, opened_on_main
from lamina.train import checkpoint
from lamina.train.distributed import Ranks
from lamina.train.divergence import check_trained
from lamina.train.rows import whole_rows

_MISSING = {"data": {"jpeg_decoding": "full", **EARLIER_DECODING}, "train": {"tf32": False}}
"""What a recipe.yaml means that is older than these fields, where a new run computes something else."""


class Run:
    """The files of one run.

    recipe.yaml, environment.json, metrics.jsonl, train.log, checkpoints/step-N/, encoder/ (timm names),
    results/ (of evaluations), evaluations/ (their trainings), analyses/, pictures/, skipped.json (files that
    could not be read) and report.html."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.recipe_file = self.path / "recipe.yaml"
        self.environment_file = self.path / "environment.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.log_file = self.path / "train.log"
        self.checkpoints = self.path / "checkpoints"
        self.encoder = self.path / "encoder"
        self.results = self.path / "results"
        self.evaluations = self.path / "evaluations"
        self.pictures = self.path / "pictures"
        self.analyses = self.path / "analyses"
        self.report_file = self.path / "report.html"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.resolve().name

    def exists(self) -> bool:
        """Whether this folder is a run."""
        return self.recipe_file.is_file()

    def opened(self, ranks: Ranks, *, resume: bool, overwrite: bool) -> FolderOnMain:
        """The folder for the one process that writes into it; see `resumable_folder.opened_on_main`."""
        return opened_on_main(ranks, self.path, self.exists, "run", resume=resume, overwrite=overwrite)

    def start(self, recipe: Recipe, data: DataFacts, init: str | None) -> None:
        """Make the folder and write down the recipe, the data and the environment."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "source": data.source,
            "images": data.images,
            "names_sha256": data.names_sha256,
            **({"content": data.content} if data.content else {}),
            **({"version": data.version._asdict()} if any(data.version) else {}),
            "init": init,
            "recipe": to_mapping(recipe),
        }
        self._write(content)
        write_json(self.environment_file, environment())

    def change(self, recipe: Recipe) -> None:
        """Write down that the run goes on with another recipe; the options from before stand beside it."""
        content = self._recipe_file()
        before = {name: old for name, (old, _) in differences(self.recipe(), recipe).items()}
        content["changed"] = [
            *content.get("changed", []),
            {"from": before, "time": datetime.now().isoformat(timespec="seconds")},
        ]
        self._write({**content, "recipe": to_mapping(recipe)})

    def _write(self, content: dict[str, Any]) -> None:
        replace_text(self.recipe_file, to_yaml(content))

    def recipe(self) -> Recipe:
        """The resolved recipe; raises where this is no run."""
        return merge(merge(Recipe(), _MISSING), self._recipe_file()["recipe"])

    def source(self) -> str:
        """The data the run was trained on, as it was given."""
        return self.data().source

    def data(self) -> DataFacts:
        """What is known of the data the run was started on."""
        content = self._recipe_file()
        facts = str(content["source"]), int(content["images"]), str(content["names_sha256"])
        known = content.get("version", {})
        version = Version(*(str(known.get(name, "")) for name in Version._fields))
        return DataFacts(*facts, str(content.get("content", "")), version)

    def init(self) -> str | None:
        """The weights file that the encoder started from, if any."""
        init = self._recipe_file().get("init")
        return None if init is None else str(init)

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a half-written last line, of a run in progress, is left out. Raises
        `LaminaError` where another is damaged."""
        return whole_rows(self.metrics_file)

    def _recipe_file(self) -> dict[str, Any]:
        if not self.exists():
            raise LaminaError(f"{self.path} is not a run: it has no recipe.yaml")
        content = read_yaml(self.recipe_file)
        kinds = {"recipe": dict, "source": str, "images": int, "names_sha256": str}
        if not isinstance(content, dict) or not all(isinstance(content.get(k), t) for k, t in kinds.items()):
            raise LaminaError(f"{self.recipe_file} is not a recipe that lamina wrote")
        return content


def software() -> dict[str, Any]:
    """Of `environment`, what scores may depend on: versions, and the number of threads."""
    made = environment()
    return {name: made[name] for name in ("python", "packages", "threads")}


def environment() -> dict[str, Any]:
    """What a result may depend on beside the recipe."""
    packages = ("lamina", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")
    cuda = torch.cuda.is_available()
    called = Path(sys.argv[0]).stem in ("lamina", "__main__")
    return {
        "command": shlex.join(["lamina", *map(without_secrets, sys.argv[1:])]) if called else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else [],
    }


def load_method(path: str | Path, step: int | None = None) -> tuple[MIM, Recipe]:
    """The method of a run in evaluation mode, at its newest good checkpoint or at `step`, and its recipe.

    Raises:
        LaminaError: where the folder is no run, has no such checkpoint, or was trained on labels.
    """
    task, recipe = load_task(path, step)
    method = mim_of(task)
    if method is None:
        raise LaminaError(f"{path} was trained on labels: it hides nothing and reconstructs nothing")
    return method, recipe


def load_task(path: str | Path, step: int | None = None) -> tuple[Task, Recipe]:
    """What a run trained, all of it, in evaluation mode; as `load_method`. A checkpoint that no step
    changed, or whose numbers are not finite, is refused."""
    run = Run(path)
    recipe = run.recipe()
    task = build_task(recipe)
    if step is not None and step not in checkpoint.steps(run.checkpoints):
        there = ", ".join(map(str, checkpoint.steps(run.checkpoints))) or "none"
        raise LaminaError(f"{run.path} has no checkpoint of step {step}; there are: {there}")
    found = (
        checkpoint.newest_good(run.checkpoints, lambda line: print(printable(line), file=sys.stderr))
        if step is None
        else run.checkpoints / f"step-{step}"
    )
    if found is None:
        raise LaminaError(f"{run.path} has no checkpoint yet; wait for the first, or train with --resume")
    content = checkpoint.read(found)
    check_trained(found)
    checkpoint.load_model_tensors(task, content.model)
    return task.eval(), recipe
