"""Options out of their range are refused in one line, from the command line, from YAML and from Python."""

from __future__ import annotations

import dataclasses
import importlib
import math
import re
import types
import typing
from pathlib import Path

import pytest

import lamina
from lamina.cli.config_file import read_config
from lamina.cli.entry import main
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.core.ranges import (
    COUNT,
    NOT_NEGATIVE,
    POSITIVE,
    SHARE,
    SHARE_ABOVE_0,
    SHARE_BELOW_1,
    SHARE_BETWEEN,
)
from lamina.evaluate.finetune.recipes import finetune_recipes
from lamina.evaluate.protocol import ProtocolOptions
from lamina.methods.catalog import recipes
from lamina.recipes.recipe import Recipe
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

DATA = "sample:photos?crop=16&most=2"
SOURCES = Path(lamina.__file__).parent
# Parameters of samples are a text of whole numbers, see `lamina.data.query`.
OPTIONS = re.compile(
    r"^class ((?!Fashion|Photos|Doom)\w+Options|\w*Windows|EncoderChanges|DenseEncoder|FinetuneEncoder|RunOptions|Reading|ComputeOptions)\b",
    re.MULTILINE,
)
WRONG = [
    ("optim.base_lr", math.nan),
    ("optim.base_lr", math.inf),
    ("optim.base_lr", -1.0),
    ("optim.clip_grad", -1.0),
    ("optim.layer_decay", 2.0),
    ("optim.betas", (0.9, 1.5)),
    ("optim.eps", math.nan),
    ("optim.weight_decay", -0.1),
    ("optim.warmup_epochs", math.inf),
    ("encoder.drop_path", -1.0),
    ("encoder.drop_path", 2.0),
    ("encoder.mean", (123.7, 116.3, 103.5)),
    ("encoder.image_size", (0, 16)),
    ("encoder.heads", 0),
    ("decoder.heads", 0),
    ("masking.mask_ratio", 1.0),
    ("supervised.smoothing", 1.0),
    ("data.flip", 1.5),
    ("train.epochs", math.nan),
    ("train.batch_size", 0),
    ("train.keep_checkpoints", 0),
    ("cmae.temperature", 0.0),
]


def nested(dotted: str, value: object) -> dict:
    group, name = dotted.split(".")
    return {group: {name: value}}


@pytest.mark.parametrize(("dotted", "value"), WRONG, ids=lambda v: str(v))
def test_every_entrance_refuses_it_in_the_same_words(
    dotted: str, value: object, tmp_path: Path, capsys
) -> None:
    with pytest.raises(LaminaError, match=f"{dotted.split('.')[1]} ") as caught:
        merge(Recipe(), nested(dotted, value))
    said = str(caught.value)
    with pytest.raises(LaminaError) as caught:
        lamina.pretrain(DATA, tmp_path / "run", options={dotted: value})
    assert str(caught.value) == said
    words = [str(v) for v in value] if isinstance(value, tuple) else [str(value)]
    flag = f"--{dotted.replace('_', '-')}"
    assert main(["pretrain", DATA, "--out", str(tmp_path / "run"), "--dry-run", flag, *words]) == 2
    assert said in capsys.readouterr().err
    yaml = tmp_path / "x.yaml"
    plain = {"nan": ".nan", "inf": ".inf"}.get(
        str(value), str(list(value) if isinstance(value, tuple) else value)
    )
    yaml.write_text("{}:\n  {}: {}\n".format(*dotted.split("."), plain))
    assert main(["pretrain", DATA, "--out", str(tmp_path / "run"), "--config", str(yaml)]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_ends_of_ranges() -> None:
    """By the words of each: which of 0 and 1 are in it."""
    ends = {POSITIVE: (0, 1), NOT_NEGATIVE: (1, 1), COUNT: (0, 1), SHARE: (1, 1), SHARE_ABOVE_0: (0, 1)}
    ends |= {SHARE_BELOW_1: (1, 0), SHARE_BETWEEN: (0, 0)}
    for allowed, (zero, one) in ends.items():
        assert (0 in allowed, 1 in allowed) == (bool(zero), bool(one)), str(allowed)
        assert math.nan not in allowed
        assert math.inf not in allowed
        assert -1 not in allowed


ANY_NUMBER = ("nodata",)
"""Options that mean every number: rasters mark pixels without data by NaN, by -1, by -9999."""


def options_of_the_package() -> list[type]:
    """Every dataclass of options in the source files, the groups of every recipe and those that verbs share."""
    found = []
    for file in sorted(SOURCES.rglob("*.py")):
        names = OPTIONS.findall(file.read_text(encoding="utf-8"))
        if names:
            parts = file.relative_to(SOURCES.parent).with_suffix("").parts
            module = importlib.import_module(".".join(parts))
            found += [getattr(module, name) for name in names]
    given = [each for each in found if dataclasses.is_dataclass(each)]
    return [each for each in given if each is not ProtocolOptions]  # made from CompareOptions, which checks


@pytest.mark.parametrize("kind", options_of_the_package(), ids=lambda kind: kind.__name__)
def test_every_number_of_every_group_of_options_has_a_range_that_is_checked(kind: type) -> None:
    """NaN and -1 are in no range: an option that takes them has none, or its group does not check."""
    for name, hint in typing.get_type_hints(kind).items():
        either = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for part in typing.get_args(hint) if either else (hint,):
            if name not in ANY_NUMBER and (value := _wrong(part)) is not None:
                with pytest.raises(LaminaError, match=rf"^{name} is "):
                    kind(**{name: value})


def _wrong(hint: object) -> object:
    """A value of that type which no option can mean; None for types without numbers."""
    if typing.get_origin(hint) is tuple:
        kinds = [part for part in typing.get_args(hint) if part is not Ellipsis]
        wrong = tuple(map(_wrong, kinds))
        return None if None in wrong else wrong
    return {int: -1, float: math.nan}.get(hint)  # type: ignore[call-overload]


@pytest.mark.parametrize(("value", "words"), [(math.inf, "a finite number, 0 or more"), (-1.0, "0 or more")])
def test_an_infinity_is_told_that_it_is_not_finite(value: float, words: str) -> None:
    with pytest.raises(LaminaError, match=rf"^base_lr is {value!r}; it must be {words}$"):
        OptimOptions(base_lr=value)


@pytest.mark.parametrize("value", ["1e-3", True])
def test_text_and_truth_values_are_no_numbers(value: object) -> None:
    with pytest.raises(LaminaError, match=rf"base_lr is {value!r}; it must be 0 or more"):
        OptimOptions(base_lr=value)  # type: ignore[arg-type]
    assert merge(Recipe(), {"encoder": {"mean": "auto"}}).encoder.mean == "auto"


def test_every_recipe_is_in_its_ranges() -> None:
    for build in {**recipes(), **finetune_recipes()}.values():
        assert build().train.batch_size >= 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1.5E-4", 1.5e-4),
        ("2e+1", 20.0),
        ("-1e2", -100.0),
        (".5e1", 5.0),
        ("3", 3),
        ("0.1", 0.1),
    ],
)
def test_numbers_of_yaml_1_2(text: str, value: float, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(f"optim:\n  base_lr: {text}\n")
    assert read_config(tmp_path / "x.yaml") == {"optim": {"base_lr": value}}


def test_text_that_looks_nearly_like_a_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: 1e\nother: e3\nthird: '1e-3'\n")
    assert read_config(tmp_path / "x.yaml") == {"name": "1e", "other": "e3", "third": "1e-3"}


def test_a_whole_number_may_be_written_with_an_exponent() -> None:
    assert merge(TrainOptions(), {"max_steps": 1e5}) == TrainOptions(max_steps=100_000)
    with pytest.raises(LaminaError, match="whole number"):
        merge(TrainOptions(), {"max_steps": 0.5})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "meta"], "'meta' cannot be used here"),
        (["--device", "cuda:99"], "device 'cuda:99' was asked for"),
        (["--optim.layer-decay", "0.5"], "layer"),
        (["--init", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--init", "OTHER"], "does not fit"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would_refuse(
    words: list[str], said: str, tmp_path: Path, capsys
) -> None:
    if words[-1] == "OTHER":
        other = lamina.load_encoder("untrained:vit_tiny_patch16_224").encoder.vit.state_dict()
        words = ["--init", str(tmp_path / "other.safetensors")]
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in other.items()}, words[1])
        said = "other.safetensors"
    small = ["--recipe", "mae-small", "--encoder.depth", "2", "--fusion", "none", "--encoder.width", "24"]
    small += ["--encoder.heads", "2"]
    assert main(["pretrain", DATA, "--out", str(tmp_path / "run"), "--dry-run", *small, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_says_that_the_warm_up_outlasts_the_run(tmp_path: Path, capsys) -> None:
    small = [
        "--recipe",
        "mae-small",
        "--encoder.depth",
        "2",
        "--fusion",
        "none",
        "--max-steps",
        "3",
        "--optim.warmup-epochs",
        "99",
    ]
    assert main(["pretrain", DATA, "--out", str(tmp_path / "run"), "--dry-run", *small]) == 0
    assert "outlasts the run of 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrain", "x", "--base-lr", "-1"], "optim.base_lr is -1"),
        (["evaluate", "segment", "x", "x", "--uper.dropout", "2"], "uper.dropout is 2"),
        (["analyze", "hessian", "x", "--batch-size", "0"], "batch_size is 0; it must be 1 or more"),
    ],
)
def test_a_range_is_told_with_the_option_as_it_was_given(words, said, tmp_path, capsys) -> None:
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith(f"lamina: {said}")


def test_a_range_is_told_with_its_group_from_a_mapping() -> None:
    with pytest.raises(LaminaError, match=r"^optim\.base_lr is -1\.0; it must be 0 or more$"):
        merge(Recipe(), {"optim": {"base_lr": -1.0}})


def test_a_config_in_another_encoding_is_told_so(tmp_path) -> None:
    (tmp_path / "x.yaml").write_bytes("name: Größe".encode("latin-1"))
    with pytest.raises(
        LaminaError, match=r"x\.yaml is not text in UTF-8 \(byte 9\); save it in that encoding$"
    ):
        read_config(tmp_path / "x.yaml")
