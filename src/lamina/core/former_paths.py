"""Names that guides of earlier versions imported from other modules: they still work, with a warning."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_RUN = {"Going": "evaluate.protocol.RunOptions"}
_DETECT = {
    "DetectData": "evaluate.detect.data.DetectData",
    "detect_recipe": "evaluate.detect.recipes.detect_recipe",
    "evaluate_detect": "evaluate.detect.protocol.evaluate_detect",
}
_SEGMENT = {
    "SegmentData": "evaluate.segment.data.SegmentData",
    "evaluate_segment": "evaluate.segment.protocol.evaluate_segment",
    "segment_recipe": "evaluate.segment.recipes.segment_recipe",
}
_CORRUPTION = {"Corruption": "evaluate.robustness.corruptions.corrupt.Corruption"}
_VARIANTS = ("class_subset", "imagenet_wnids", "open_imagenet_c", "open_variant")
_MODELS = {"open_subjects": "analyze.models.open_models"}
_COST = {"look_cost": "callbacks.encoder_monitor.monitor_cost"}
MOVED: dict[str, dict[str, str]] = {
    "lamina.analyze.models": _MODELS,
    "lamina.analyze.subject": _MODELS,
    "lamina.callbacks.encoder_monitor": _COST,
    "lamina.corruptions": _CORRUPTION,
    "lamina.data": {
        "eval_batches": "data.loading.loader.eval_batches",
        "open_source": "data.open.open_source",
    },
    "lamina.data.dense": {name: f"data.dense.sources.{name}" for name in ("MapSource", "ObjectSource")},
    "lamina.data.imagenet_variants": {n: f"evaluate.robustness.imagenet_variants.{n}" for n in _VARIANTS},
    "lamina.downstream": _RUN,
    "lamina.downstream.detect": _DETECT,
    "lamina.downstream.segment": _SEGMENT,
    "lamina.evaluate": _RUN,
    "lamina.evaluate.detect": _DETECT,
    "lamina.evaluate.finetune.protocol": _RUN,
    "lamina.evaluate.robustness.corruptions": _CORRUPTION,
    "lamina.evaluate.run_options": _RUN,
    "lamina.evaluate.segment": _SEGMENT,
    "lamina.watching": _COST,
}
"""The module of an earlier version -> the name in it -> its module and name now, below `lamina`."""


class _Finder:
    """Finds the modules of `MOVED`: those that still exist as usual, the others as empty packages."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        if name not in MOVED:
            return None
        spec = PathFinder.find_spec(name, path, target) or ModuleSpec(name, None, is_package=True)
        spec.loader = _Loader(spec.loader, MOVED[name])  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads a module by its own loader, if it has one, and gives it the former names."""

    def __init__(self, inner: Any, names: Mapping[str, str]) -> None:
        self._inner, self._names = inner, names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None if self._inner is None else self._inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._inner is not None:
            self._inner.exec_module(module)
        module.__getattr__ = partial(_former, module.__name__, self._names)  # type: ignore[method-assign]

    def __getattr__(self, name: str) -> Any:  # sources, for tracebacks
        return getattr(self._inner, name)


def _former(module: str, names: Mapping[str, str], name: str) -> Any:
    if name not in names:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    home, _, now = names[name].rpartition(".")
    warnings.warn(
        f"{module}.{name} is now {now} of lamina.{home}; the former name will be removed in the next version",
        DeprecationWarning,
        stacklevel=2,
    )
    return getattr(import_module(f"lamina.{home}"), now)


def find_former_paths() -> None:
    """Make the names of `MOVED` importable in this process."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
