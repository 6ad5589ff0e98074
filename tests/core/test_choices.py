"""What a choice switches off: declared as the code reads it, and refused from every entrance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
import yaml
from torch import nn

from helpers.dense_data import toy_backbone, toy_data
from lamina.api import apply_options, recipe
from lamina.cli.entry import main
from lamina.core.choices import check_read, read_mapping, unread
from lamina.core.config import flatten, merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.data.augment.crops import make_crop
from lamina.data.loading.loader import _views
from lamina.data.options import DataOptions
from lamina.decoder.options import DecoderOptions
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.detect.recipes import DetectRecipe
from lamina.evaluate.segment.build import plan_segmentation
from lamina.evaluate.segment.recipes import segment_recipe
from lamina.fusion.build import build_fusion
from lamina.fusion.options import FusionOptions
from lamina.masking.build import build_masking
from lamina.masking.options import MaskingOptions
from lamina.recipes.build import compose
from lamina.recipes.recipe import Recipe
from lamina.targets.options import TargetOptions
from lamina.train.optim import build_optimizer
from lamina.train.optim_options import OptimOptions
from lamina.train.schedule import learning_rate

torch.set_num_threads(1)


def spied(options: Any) -> tuple[Any, set[str]]:
    """The same options, and the names of the fields that somebody reads from now on."""
    read: set[str] = set()
    names = {field.name for field in fields(options)}

    class Spy(type(options)):
        def __getattribute__(self, name: str) -> Any:
            if name in names:
                read.add(name)
            return super().__getattribute__(name)

    spy = replace(options)
    object.__setattr__(spy, "__class__", Spy)
    return spy, read


def build_crop(options: DataOptions) -> None:
    make_crop(options, (32, 32))
    _views(options, (32, 32))


def build_decoder(options: DecoderOptions) -> None:
    hide = "replace" if options.kind == "linear" else "drop"
    network = EncoderOptions(image_size=(32, 32), width=32, depth=2, heads=2, hide=hide)
    compose(replace(Recipe(), encoder=network, decoder=options, fusion=FusionOptions(kind="none")))


def build_target(options: TargetOptions) -> None:
    network = EncoderOptions(image_size=(32, 32), width=32, depth=2, heads=2)
    small = DecoderOptions(width=32, depth=1, heads=1)
    compose(
        replace(Recipe(fusion=FusionOptions(kind="none")), encoder=network, decoder=small, target=options)
    )


def optimise(options: OptimOptions) -> None:
    build_optimizer(nn.Linear(2, 2), options)
    for step in (0, 50, 99):
        learning_rate(step, total_steps=100, steps_per_epoch=2.0, batch_size=8, options=options)


CHOICES: list[tuple[Any, str, tuple[Any, ...], Callable[[Any], Any], set[str]]] = [
    (
        MaskingOptions(),
        "kind",
        ("random", "blocks", "blockwise", "inverse", "scored"),
        lambda options: build_masking(options, (16, 16)),
        set(),
    ),
    (
        FusionOptions(),
        "kind",
        ("none", "mff", "mix"),
        lambda options: build_fusion(options, 32, 12),
        set(),
    ),
    (
        DecoderOptions(width=32, depth=1, heads=1),
        "kind",
        ("mae", "linear", "cross", "prompt"),
        build_decoder,
        set(),
    ),
    (
        TargetOptions(),
        "kind",
        ("pixels", "hog"),
        build_target,
        # Of targets that ask another network, which `lamina.interop.teachers` opens.
        {
            "tokenizer",
            "teacher",
            "teacher_encoder",
            "projected",
            "teacher_precision",
            "width",
            "target_sha256",
        },
    ),
    (OptimOptions(), "kind", ("adamw", "lars"), optimise, {"clip_grad"}),
    (OptimOptions(), "schedule", ("cosine", "multistep", "poly"), optimise, {"clip_grad"}),
    (DataOptions(), "crop", ("random_resized", "simple_resized", "center"), build_crop, None),
    (DataOptions(), "second_view", ("none", "cmae"), build_crop, None),
]
"""Options, the field that chooses, its values, what reads the options, and the fields that are read elsewhere
(None: most of them)."""


@pytest.mark.parametrize(
    ("options", "choice", "value", "build", "elsewhere"),
    [(options, choice, value, *rest) for options, choice, values, *rest in CHOICES for value in values],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_declared_is_what_the_code_reads(
    options: Any, choice: str, value: str, build: Callable[[Any], Any], elsewhere: set[str] | None
) -> None:
    """Whoever adds an option that some kinds do not read hears of it here."""
    chosen = replace(options, **{choice: value})
    spy, read = spied(chosen)
    build(spy)
    idle = set(unread(chosen))
    if not isinstance(chosen, FusionOptions):  # whose MFF is handed the fields of both poolings
        assert not read & idle, "read, but refused"
    if elsewhere is not None:
        assert {f.name for f in fields(chosen)} - idle - elsewhere <= read, "accepted, but not read"


def another(value: Any, hint: Any) -> Any:
    """A value of the same type, within any range."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    if get_origin(hint) is Literal:
        return next(kind for kind in kinds if kind != value)
    if get_origin(hint) is tuple:
        parts = kinds if Ellipsis not in kinds else kinds[:1] * max(1, len(value or ()))
        old = value or [None] * len(parts)
        return tuple(another(each, kind) for each, kind in zip(old, parts, strict=True))
    if hint is bool:
        return not value
    if hint is int:
        return 2 if value is None else value + 1
    if hint is float:
        return 0.5 if value is None else (value + 0.3) / 2
    if hint is str:
        return "another"
    return another(None if isinstance(value, str) and value not in get_args(kinds[0]) else value, kinds[0])


def leaves(options: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value and type of each field."""
    hints = get_type_hints(type(options))
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, hints[field.name]


def nested(name: str, value: Any) -> dict[str, Any]:
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def trees() -> dict[str, Any]:
    """A recipe for each value of each choice."""
    found: dict[str, Any] = {head: segment_recipe(head=head) for head in ("linear", "upernet", "dpt", "knn")}
    found |= {name: recipe(name) for name in ("finetune", "linear-mae", "cmae-b", "deit-s")}
    found["detect"] = DetectRecipe()
    for options, choice, values, *_ in CHOICES:
        group = type(options).__name__.removesuffix("Options").lower()
        for value in values:
            name = f"{group}.{choice}"
            found[f"{name} {value}"] = merge(Recipe(), nested(name, value))
    for kind in ("tokens", "teacher"):
        found[f"target.kind {kind}"] = merge(Recipe(), nested("target.kind", kind))
    found["max_steps"] = merge(Recipe(), {"train": {"max_steps": 3}, "optim": {"warmup_steps": 1}})
    return found


TREES = trees()


@pytest.mark.parametrize("tree", TREES)
def test_each_field_that_is_not_read_is_refused_and_its_old_value_is_not(tree: str) -> None:
    start = TREES[tree]
    idle = unread(start)
    assert idle
    for name, value, hint in leaves(start):
        check_read(start, merge(start, nested(name, value)))
        if name not in idle:
            continue
        changed = merge(start, nested(name, another(value, hint)))
        with pytest.raises(
            LaminaError, match=rf"^{name} has no effect where .* is .*: leave it out, or give"
        ) as error:
            check_read(start, changed)
        assert "\n" not in str(error.value)
    assert not set(idle) & set(flatten(read_mapping(start)))


def test_the_reason_names_the_choice_and_the_way_out() -> None:
    start = Recipe(fusion=FusionOptions(kind="none"))
    with pytest.raises(LaminaError) as error:
        check_read(start, merge(start, {"fusion": {"layers": [0, 11], "heads": 3}, "optim": {"trust": 0.1}}))
    assert str(error.value) == (
        "fusion.layers, fusion.heads have no effect where fusion.kind is none: leave them out, or give "
        "fusion.kind mff; optim.trust has no effect where optim.kind is adamw: leave it out, or give "
        "optim.kind lars"
    )


def test_every_entrance_refuses(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Before anything is opened: there are neither images nor a model of these names."""

    def said(*words: str) -> str:
        assert main([*words, "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    config = tmp_path / "some.yaml"
    config.write_text("fusion: {kind: none, layers: [0, 1]}")
    pretrain = ("pretrain", "nowhere")
    assert "fusion.layers has no effect" in said(*pretrain, "--fusion", "none", "--fusion.layers", "0")
    assert "fusion.layers has no effect" in said(*pretrain, "--recipe", "mae-b", "--fusion.layers", "0", "11")
    assert "fusion.layers has no effect" in said(*pretrain, "--config", str(config))
    assert "train.epochs has no effect" in said(*pretrain, "--max-steps", "3", "--epochs", "5")
    assert "nowhere" in said(
        *pretrain, "--config", str(config), "--fusion", "mff", "--fusion.layers", "0", "11"
    )
    config.write_text("fusion: {layers: [0, 11]}")  # of a pair, whose plain twin has one more flag
    assert "nowhere" in said(*pretrain, "--config", str(config), "--fusion", "none")
    assert "nowhere" in said(*pretrain, "--recipe", "mae-b", "--optim.momentum", "0.9")  # as it is
    segment = ("evaluate", "segment", "nowhere", "nowhere")
    assert "uper.dropout has no effect where head is linear" in said(*segment, "--uper.dropout", "0.2")
    assert "train.epochs has no effect where head is knn" in said(*segment, "--head", "knn", "--epochs", "3")
    assert "train.epochs has no effect where train.max_steps is 1000" in said(*segment, "--epochs", "3")
    assert not (tmp_path / "out").exists()
    with pytest.raises(LaminaError, match=r"masking\.unit_px has no effect where masking\.kind is random"):
        apply_options(recipe("mae-b"), {"masking.unit_px": 16})
    asked = merge(segment_recipe(head="linear"), {"uper": {"dropout": 0.2}})
    with pytest.raises(LaminaError, match=r"uper\.dropout has no effect where head is linear"):
        plan_segmentation(toy_backbone(), toy_data(), asked)


def test_a_runs_own_recipe_is_taken_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One arm of a pair keeps what the other reads."""
    arm = merge(recipe("mae-small"), {"fusion": {"kind": "none", "layers": [0, 2, 5]}, "name": "arm"})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({"recipe": to_mapping(arm)}))
    assert main(["pretrain", "nowhere", "--config", str(file), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere" in capsys.readouterr().err
