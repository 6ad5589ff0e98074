"""Results of a Hessian analysis on disk after each mini-batch, so that an interrupted one can continue."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from lamina.analyze.curvature.density import Density, Trace
from lamina.analyze.curvature.lanczos import Eigenvalue
from lamina.analyze.curvature.mini_batch import BatchCurvature
from lamina.core.batch import Batch
from lamina.core.files import check_writable
from lamina.core.frozen import network_sha256, weights_sha256
from lamina.core.records import read_object, write_json

FILE = "hessian.partial.json"


class PartialHessian:
    """Mini-batches by model and number; the file is deleted once the analysis is written."""

    def __init__(self, file: Path, settings: str, found: dict[str, Any], note: str = "") -> None:
        self.file, self._settings, self._found, self.note = file, settings, found, note

    @classmethod
    def open(
        cls,
        folder: Path,
        tasks: Mapping[str, nn.Module],
        batches: Sequence[Batch],
        settings: Mapping[str, Any],
    ) -> PartialHessian:
        """What the folder holds of this analysis: the same weights, images, keys and settings.

        `note` says what is there: mini-batches to go on from, or those of another analysis, which are
        replaced.

        Raises:
            LaminaError: where nothing can be written to the folder.
        """
        file = folder / FILE
        check_writable(file)
        digest = _digest(tasks, batches, settings)
        try:
            content = read_object(file)
            found = {str(name): _read(each) for name, each in content["found"].items()}
            if content["settings"] == digest:
                note = f"{len(found)} mini-batches of an interrupted call are taken from {file}"
                return cls(file, digest, found, note)
            return cls(file, digest, {}, f"{file} is of other models, images or settings, and is replaced")
        except FileNotFoundError:
            return cls(file, digest, {})
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls(file, digest, {}, f"{file} is damaged, and is replaced")

    def __len__(self) -> int:
        return len(self._found)

    def get(self, name: str, number: int) -> BatchCurvature | None:
        """What was found on a mini-batch; None where it was not finished."""
        found: BatchCurvature | None = self._found.get(_place(name, number))
        return found

    def add(self, name: str, number: int, found: BatchCurvature) -> None:
        """Keep a mini-batch."""
        self._found[_place(name, number)] = found
        content = {place: asdict(each) for place, each in self._found.items()}
        write_json(self.file, {"settings": self._settings, "found": content})


def _place(name: str, number: int) -> str:
    return f"{number} {name}"


def _digest(tasks: Mapping[str, nn.Module], batches: Sequence[Batch], settings: Mapping[str, Any]) -> str:
    images = {
        f"{i} {name}": tensor
        for i, batch in enumerate(batches)
        for name, tensor in vars(batch).items()
        if hasattr(tensor, "dtype")
    }
    facts = {
        "tasks": {name: network_sha256(task) for name, task in tasks.items()},
        "batches": weights_sha256(images),
        "settings": dict(settings),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _read(content: Mapping[str, Any]) -> BatchCurvature:
    ends = {
        name: tuple(Eigenvalue(**each) for each in content[name]) for name in ("top", "bottom", "magnitude")
    }
    trace, density = content["trace"], content["density"]
    if density is not None:
        density = Density(**{**density, **{name: tuple(density[name]) for name in ("nodes", "weights")}})
    parts = {"trace": None if trace is None else Trace(**trace), "density": density}
    return BatchCurvature(**{**content, **ends, **parts})
