"""The forms in which models are named, taken apart in one place, and told apart by short names."""

from __future__ import annotations

from pathlib import Path

import pytest

from lamina.core.errors import LaminaError
from lamina.interop.load import load_encoder
from lamina.recipes.recipe import Recipe
from lamina.runs.data_facts import DataFacts
from lamina.runs.model_spec import locate_step, parse_model, short_names
from lamina.runs.run import Run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs, one of which has a name like a step, and a file; it is the working folder."""
    for name in ("mae", "mae@7"):
        run = Run(tmp_path / "runs" / name)
        run.start(Recipe(), DataFacts("images", 1, "0"), None)
        (run.checkpoints / "step-12").mkdir(parents=True)
    (tmp_path / "weights.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("spec", "run", "step", "short"),
    [
        ("runs/mae", "mae", None, "mae"),
        ("~/runs/mae", "mae", None, "mae"),
        ("runs/mae@12", "mae", 12, "mae@12"),
        ("runs/mae@99", "mae", 99, "mae@99"),  # whether there is such a step is found when it is opened
        ("runs/mae@7", "mae@7", None, "mae@7"),  # a path that exists is taken as it is
        ("runs/mae@7@12", "mae@7", 12, "mae@7@12"),
        ("runs/mae/checkpoints/step-12", "mae", 12, "mae@12"),
        ("runs/mae/checkpoints/step-12/model.safetensors", "mae", 12, "mae@12"),
        ("runs/mae/checkpoints/step-99", "mae", 99, "mae@99"),
        ("runs/mae/checkpoints", None, None, "checkpoints"),
        ("runs/none@12", None, None, "none@12"),
        ("weights.safetensors", None, None, "weights.safetensors"),
        ("timm/vit_tiny_patch16_224", None, None, "vit_tiny_patch16_224"),
        ("vit_tiny_patch16_224", None, None, "vit_tiny_patch16_224"),
    ],
)
def test_the_forms_of_a_models_name(
    spec: str, run: str | None, step: int | None, short: str, here: Path
) -> None:
    found = parse_model(spec)
    assert not found.untrained
    assert (found.run and found.run.path.name, found.step, found.short_name) == (run, step, short)
    assert found.timm_name == spec.removeprefix("timm/")
    twin = parse_model(f"untrained:{spec}")
    assert twin.untrained
    assert (twin.run, twin.step) == (None, None)  # it has none of the run's weights
    assert (twin.name, twin.path, twin.short_name) == (spec, found.path, f"untrained:{short}")
    if step is not None:
        folder, located = locate_step(spec)
        assert (folder.name, located) == (run, step)


@pytest.mark.parametrize("spec", ["runs/mae@99", "runs/mae/checkpoints/step-99"])
def test_a_step_that_is_not_there_is_named_with_those_that_are(spec: str, here: Path) -> None:
    with pytest.raises(LaminaError, match="has no checkpoint of step 99; there are: 12"):
        load_encoder(spec)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("runs/none@12", "is not a run"),
        ("weights.safetensors", "is not a run"),
        ("runs/mae", "has no checkpoint yet"),
    ],
)
def test_a_step_of_what_is_no_run_is_refused(spec: str, said: str, here: Path) -> None:
    (here / "runs/mae/checkpoints/step-12").rmdir()
    with pytest.raises(LaminaError, match=said):
        locate_step(spec)


def test_short_names_tell_models_apart() -> None:
    assert short_names(["runs/mae", "runs/mff@10"]) == {"mae": "runs/mae", "mff@10": "runs/mff@10"}
    assert set(short_names(["a/mae", "b/mae"])) == {"a/mae", "b/mae"}
    with pytest.raises(LaminaError, match="twice"):
        short_names(["runs/mae", "runs/mae"])
