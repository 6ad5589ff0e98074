"""A protocol is its own file and a row: what rows name is there, and `compare` runs one that is added."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from helpers.runs import stripes_folder, toy_recipe, toy_run
from lamina.cli.verbs import VERBS
from lamina.core.errors import LaminaError
from lamina.evaluate import catalog
from lamina.evaluate.compare import options, recipes, run
from lamina.evaluate.compare.options import CompareOptions
from lamina.evaluate.compare.run import compare
from lamina.evaluate.protocol import Protocol, ProtocolOptions, RunOptions, chosen_recipe, imported
from lamina.evaluate.score import Score
from lamina.features.options import ComputeOptions
from lamina.train.options import TrainOptions


@pytest.mark.parametrize("protocol", catalog.PROTOCOLS, ids=lambda row: row.name)
def test_what_a_row_names_is_there(protocol: Protocol) -> None:
    given = list(inspect.signature(imported(protocol.run)).parameters)
    assert given == ["model", "data", "options", "run_options", "compute"]
    assert set(protocol.options) <= {field.name for field in fields(ProtocolOptions)}
    assert ("recipe" in protocol.options) == bool(protocol.recipe)
    if protocol.recipe:
        assert imported(protocol.recipe)(protocol.name, {"train": {"seed": 0}}).train.seed == 0
    assert not protocol.after or catalog.protocol_named(protocol.after)
    verb = next(verb for verb in VERBS if verb.name == f"evaluate {protocol.name}")
    assert f"{verb.help}." == protocol.help


def constant(
    model: Any, data: str, options: ProtocolOptions, run_options: RunOptions, compute: ComputeOptions
) -> tuple[Score, ...]:
    """A protocol in this file: it finds the batch size of its recipe, and the seed."""
    batch = train_recipe(options.protocol, options.recipe).batch_size
    return (Score(options.protocol, str(model), None, data, "n", batch, None, 1, 1, run_options.seed),)


def train_recipe(protocol: str, given: dict[str, Any]) -> TrainOptions:
    return chosen_recipe(protocol, given, lambda name: TrainOptions(batch_size=7))


def test_a_protocol_is_a_file_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = f"{__name__}:constant"
    rows = (
        Protocol("constant", "One number.", path, recipe=f"{__name__}:train_recipe"),
        Protocol("after", "One number of what the other trained.", path, after="constant", seeded=False),
    )
    for module in (catalog, recipes, run):
        monkeypatch.setattr(module, "PROTOCOLS", rows)
    monkeypatch.setattr(options, "PROTOCOL_NAMES", ("constant", "after"))
    data = stripes_folder(tmp_path / "data")
    toy_run(tmp_path / "run", toy_recipe())
    requested = CompareOptions(protocols=("constant",), seeds=2, workers=0, device="cpu")
    given = {"constant": {"batch_size": 3}}
    (scores,) = compare([str(tmp_path / "run")], data, tmp_path / "out", requested, recipes=given).values()
    assert [(score.protocol, score.value, score.seed) for score in scores] == [
        ("constant", 3, 0),
        ("constant", 3, 1),
    ]
    assert scores[0].model == str(tmp_path / "run")
    # One that tests what another one trained is run last, and needs that.
    later = CompareOptions(protocols=("after", "constant"), seeds=2, workers=0, device="cpu")
    with pytest.raises(LaminaError, match=r"trainings.constant.run-seed0 is gone"):
        compare([str(tmp_path / "run")], data, tmp_path / "out", later, recipes=given)
    with pytest.raises(LaminaError, match="there are recipes for constant, not for 'after'"):
        compare([str(tmp_path / "run")], data, tmp_path / "new", later, recipes={"after": {}})
