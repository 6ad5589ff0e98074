"""Options that a protocol would drop in silence do not exist there; what was recorded of them is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import detection as detect_toys
from helpers.dense_data import toy_data
from lamina.api import recipe
from lamina.cli.entry import main
from lamina.cli.evaluate_trained import parse_label_training
from lamina.core.config import flatten, merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.records import to_yaml
from lamina.data.options import MAX_DECODE_MB
from lamina.data.sources import ArraySource
from lamina.evaluate.dense.train import _other_settings
from lamina.evaluate.detect.build import plan_detection
from lamina.evaluate.detect.recipes import detect_recipe, detect_recipes
from lamina.evaluate.finetune.adapt import adapt_recipe
from lamina.evaluate.finetune.recipes import finetune_recipes
from lamina.evaluate.segment.build import plan_segmentation
from lamina.evaluate.segment.recipes import segment_recipe, segment_recipes
from lamina.evaluate.unused_options import PRETRAINING_FIELDS, without_old_fields
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.methods.catalog import recipe as pretraining_recipe
from lamina.train.options import TrainOptions

torch.set_num_threads(1)
NETWORK = "untrained:vit_tiny_patch16_224"
DATA = "sample:photos?crop=32&most=2"
IMAGES = ArraySource(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), list("abcd"))


@pytest.fixture(scope="module")
def model() -> Backbone:
    return load_encoder(NETWORK)


NO_OPTIONS = [
    "encoder.name",
    "encoder.patch_size",
    "encoder.depth",
    "encoder.mean",
    "encoder.class_tokens",
    "masking.mask_ratio",
    "decoder.depth",
    "target.kind",
    "loss",
    "method",
    "cmae.weight",
    "data.eval_crop_share",
    "data.alpha_background",
    "data.crop_px",
    "data.view_grey_share",
]


@pytest.mark.parametrize("build", finetune_recipes().values())
def test_a_training_on_labels_has_no_options_of_what_it_does_not_do(build: Callable[[], Any]) -> None:
    own = flatten(to_mapping(build()))
    assert set(NO_OPTIONS) <= set(PRETRAINING_FIELDS) - set(own)


@pytest.mark.parametrize("build", [*segment_recipes().values(), *detect_recipes().values()])
def test_a_dense_protocol_reads_all_of_its_options_of_data(build: Callable[[], Any]) -> None:
    """Its crops, flips and the like are the window's, and files become images as for the model."""
    gone = ("crop", "crop_scale", "flip", "auto_augment", "erase", "second_view", "exif_orientation")
    assert not set(gone) & set(to_mapping(build().data))


SWITCHED_OFF = [
    ("finetune", {"fusion": {"layers": [0, 11]}}, "fusion.layers"),
    ("finetune", {"fusion": {"pooling": "attention", "heads": 2}}, "fusion.pooling, fusion.heads have"),
    ("finetune", {"fusion": {"kind": "mff", "heads": 2}}, "fusion.heads has"),
    (
        "finetune",
        {"fusion": {"kind": "mff", "pooling": "attention", "logit_lr_scale": 9.0}},
        "fusion.logit_lr_scale has",
    ),
    ("attentive", {"encoder": {"drop_path": 0.1}}, "encoder.drop_path"),
    ("linear-mae", {"optim": {"layer_decay": 0.5}}, "optim.layer_decay"),
    ("finetune", {"data": {"max_decode_mb": 7}}, "data.max_decode_mb 7 has"),
]


@pytest.mark.parametrize(("name", "fields", "message"), SWITCHED_OFF, ids=lambda v: str(v))
def test_trainings_on_labels_refuse_what_they_do_not_use(
    name: str, fields: dict, message: str, model: Backbone
) -> None:
    requested = merge(recipe(name), fields)
    with pytest.raises(LaminaError, match=rf"{message}.* no effect"):
        adapt_recipe(requested, model, IMAGES)


def test_what_is_used_is_taken(model: Backbone) -> None:
    used = {
        "encoder": {"image_size": [64, 64], "drop_path": 0.2},
        "fusion": {"kind": "mff", "layers": [0, 11], "logit_lr_scale": 9.0},
        "supervised": {"mixup": 0.0, "head_std": 0.1},
        "data": {"flip": 0.0, "erase": 0.1, "workers": 0, "max_decode_mb": 2 * MAX_DECODE_MB},
        "optim": {"base_lr": 1e-2},
        "train": {"epochs": 3.0},
        "labels": {"teacher": "timm/deit_tiny_patch16_224"},
        "monitor": {"images": 0},
    }
    run, _ = adapt_recipe(merge(recipe("finetune"), used), model, IMAGES)
    kept = flatten(to_mapping(run))
    assert {name: kept[name] for name in flatten(used)} == flatten(used)


@pytest.mark.parametrize("name", ["finetune", "linear-mae", "attentive"])
def test_the_recipe_of_an_earlier_training_starts_the_same_one(
    name: str, model: Backbone, tmp_path: Path
) -> None:
    """A run's recipe.yaml says all of a `Recipe`; by --config it gives that training again."""
    run, _ = adapt_recipe(recipe(name), model, IMAGES)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"recipe": to_mapping(run), "source": "x"}))
    again = parse_label_training(name, [NETWORK, DATA, "--config", str(tmp_path / "recipe.yaml")]).fields
    assert adapt_recipe(again, model, IMAGES)[0] == run


def test_other_fields_of_a_saved_recipe_are_refused() -> None:
    start = recipe("finetune")
    saved = {"masking": {"mask_ratio": 0.9}, "encoder": {"start": "timm"}, "train": {"epochs": 2.0}}
    assert without_old_fields(saved, start) == {"train": {"epochs": 2.0}}  # start: a former name
    for saved in ({"encoder": {"dropp_path": 0.1}}, {"frob": 1}):
        with pytest.raises(LaminaError, match="is not an option"):
            merge(start, without_old_fields(saved, start))
    with pytest.raises(LaminaError, match="the recipe of a pre-training"):
        without_old_fields(to_mapping(pretraining_recipe("mae")), start)


def test_a_dense_protocol_reads_images_as_the_model_does(model: Backbone) -> None:
    own = replace(model.origin.recipe.data, exif_orientation=False, alpha_background=7, max_decode_mb=4000)
    trained = replace(model.origin.recipe, data=own)
    other = Backbone(model.encoder, None, replace(model.origin, recipe=trained))
    planned = plan_segmentation(other, toy_data(), segment_recipe(head="linear"))
    how = planned.reading.decoding(3)
    assert (how.exif_orientation, how.alpha_background, how.max_decode_mb) == (False, 7, 4000)
    kept = planned.settings("segment")["recipe"]["data"]
    assert (kept["exif_orientation"], kept["alpha_background"]) == (False, 7)


def test_dense_protocols_refuse_limits_that_the_model_exceeds(model: Backbone) -> None:
    pytest.importorskip("faster_coco_eval", reason="faster-coco-eval is not installed (extra: dense)")
    requested = merge(detect_recipe(), {"data": {"max_decode_mb": 1}})
    with pytest.raises(LaminaError, match=r"data\.max_decode_mb 1 has no effect on detect-small"):
        plan_detection(model, detect_toys.toy_data(), requested)


def test_dense_protocols_refuse_shares_of_weights(model: Backbone) -> None:
    """Each process tests its own images with the network that was trained."""
    shares = {"train": {"shard": "fsdp"}}
    refused = "train.shard fsdp does not work with segment and detect"
    with pytest.raises(LaminaError, match=refused):
        plan_segmentation(model, toy_data(), merge(segment_recipe(head="linear"), shares))
    with pytest.raises(LaminaError, match=refused):
        plan_detection(model, detect_toys.toy_data(), merge(detect_recipe(), shares))


@pytest.mark.parametrize(
    ("verb", "given", "message"),
    [
        ("finetune", ["--mean", "0.1", "0.1", "0.1"], "--encoder.mean is an option of `lamina pretrain`"),
        ("finetune", ["--encoder", "vit_base_patch16_224"], "give --network"),
        ("attentive", ["--mask-ratio=0.9", "--loss", "l1"], "--masking.mask-ratio, --loss are options of"),
        ("finetune", ["--encoder.no-zero-branches"], "--encoder.zero-branches is an option of `lamina pre"),
        ("segment", ["--data.crop", "center"], "--data.crop is an option of `lamina pretrain`"),
        ("detect", ["--data.no-exif-orientation"], "--data.exif-orientation is an option of"),
    ],
)
def test_the_command_line_refuses_them_before_anything_is_made(
    verb: str, given: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["evaluate", verb, NETWORK, DATA, "--out", str(tmp_path / "out"), *given]
    assert main(words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_settings_of_an_earlier_dense_training_are_those_of_today(
    model: Backbone, tmp_path: Path
) -> None:
    """They say how training images would have been cropped, which the windows do."""
    now = plan_segmentation(model, toy_data(), segment_recipe(head="linear")).settings("segment")
    earlier = merge_mappings(now, {"recipe": {"data": to_mapping(model.origin.recipe.data)}})
    (tmp_path / "evaluation.yaml").write_text(to_yaml(earlier))
    assert not _other_settings(tmp_path / "evaluation.yaml", to_yaml(now), TrainOptions())
    other = merge_mappings(now, {"recipe": {"data": {"alpha_background": 7}}})
    with pytest.raises(LaminaError, match=r"these differ: recipe\.data\.alpha_background"):
        _other_settings(tmp_path / "evaluation.yaml", to_yaml(other), TrainOptions())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_dense_training_from_before_tf32_goes_on_where_it_changes_nothing(
    device: str, model: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It computed in full fp32, which TF32 on a GPU is not."""
    now = plan_segmentation(model, toy_data(), segment_recipe(head="linear")).settings("segment")
    assert now["recipe"]["train"]["tf32"] is True
    train = {name: value for name, value in now["recipe"]["train"].items() if name != "tf32"}
    file = tmp_path / "evaluation.yaml"
    file.write_text(to_yaml({**now, "recipe": {**now["recipe"], "train": train}}))
    monkeypatch.setattr("lamina.evaluate.dense.train.choose_device", lambda name: torch.device(device))
    full = merge_mappings(now, {"recipe": {"train": {"tf32": False}}})
    assert not _other_settings(file, to_yaml(full), TrainOptions(tf32=False))
    assert not _other_settings(file, to_yaml(now), TrainOptions(precision="bf16"))
    if device == "cpu":
        assert not _other_settings(file, to_yaml(now), TrainOptions())
    else:
        with pytest.raises(LaminaError, match=r"these differ: recipe\.train\.tf32"):
            _other_settings(file, to_yaml(now), TrainOptions())


def merge_mappings(a: dict, b: dict) -> dict:
    """b over a, at any depth."""
    deeper = {k: merge_mappings(a[k], v) if isinstance(v, dict) else v for k, v in b.items()}
    return {**a, **deeper}
