"""What a guide of an earlier version imported can still be imported, with a warning that names its new place."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import lamina
from lamina.core.former_paths import MOVED

GUIDES = """
from lamina.corruptions import Corruption
from lamina.data import eval_batches, open_source
from lamina.data.imagenet_variants import class_subset, imagenet_wnids, open_variant
from lamina.downstream import Going
from lamina.downstream.segment import SegmentData, evaluate_segment, segment_recipe
from lamina.downstream.detect import DetectData, detect_recipe, evaluate_detect
from lamina.evaluate import Going
from lamina.evaluate.segment import SegmentData, evaluate_segment, segment_recipe
from lamina.evaluate.detect import DetectData, detect_recipe, evaluate_detect
from lamina.evaluate.finetune.protocol import Going
from lamina.evaluate.run_options import Going
from lamina.evaluate.robustness.corruptions import Corruption
from lamina.analyze.subject import open_subjects
from lamina.analyze.models import open_subjects
""".strip().splitlines()
"""Lines of pages from before the packages were arranged anew, to the letter."""


@pytest.mark.parametrize("line", GUIDES)
def test_lines_of_earlier_guides_still_run(line: str) -> None:
    scope: dict[str, object] = {}
    with pytest.warns(DeprecationWarning, match=r"is now \w+ of lamina\.") as said:
        exec(line, scope)
    for name in line.partition(" import ")[2].split(", "):
        mine = [str(warning.message) for warning in said if f".{name} is now" in str(warning.message)]
        _, _, now, _, home, *_ = mine[0].split(";")[0].replace(f"{name} is now", "x is").split()
        assert scope[name] is getattr(import_module(home), now)
        assert {warning.filename for warning in said} == {"<string>"}  # of whoever imports


def test_each_former_name_leads_somewhere_and_hides_nothing() -> None:
    for module, names in MOVED.items():
        for name, now in names.items():
            with pytest.warns(DeprecationWarning, match="will be removed"):
                found = getattr(import_module(module), name)
            assert found is getattr(import_module("lamina." + now.rpartition(".")[0]), now.rpartition(".")[2])
            assert name not in vars(import_module(module))
        assert not hasattr(import_module(module), "nothing")


def test_modules_that_still_exist_are_as_any_other() -> None:
    for module in MOVED:
        spec = importlib.util.find_spec(module)
        if spec is not None and spec.origin is not None:
            assert spec.loader.get_source(module) == Path(spec.origin).read_text()  # type: ignore[union-attr]
    with pytest.raises(ModuleNotFoundError):
        import_module("lamina.downstream.nowhere")
    with pytest.raises(ModuleNotFoundError):
        import_module("corruptions")


def test_nothing_more_is_imported_for_it() -> None:
    code = "import sys, lamina; print([m for m in sys.modules if m.startswith('lamina')])"
    folder = str(Path(lamina.__file__).parents[1])
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": folder}
    )
    assert sorted(eval(shown.stdout)) == ["lamina", "lamina.core", "lamina.core.former_paths"]
