"""Options that a protocol would drop in silence, or record and not do, are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import detect_toys
from dense_toys import toy_data
from lamina.api import recipe
from lamina.cli.entry import main
from lamina.core.config import merge
from lamina.core.errors import LaminaError
from lamina.data.sources import ArraySource
from lamina.evaluate.detect.build import plan_detection
from lamina.evaluate.detect.recipes import detect_recipe
from lamina.evaluate.finetune.adapt import adapted
from lamina.evaluate.segment.build import plan_segmentation
from lamina.evaluate.segment.recipes import segment_recipe
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder

torch.set_num_threads(1)
NETWORK = "untrained:vit_tiny_patch16_224"
DATA = "sample:photos?crop=32&most=2"


@pytest.fixture(scope="module")
def model() -> Backbone:
    return load_encoder(NETWORK)


UNUSED = [
    ("finetune", {"encoder": {"name": "vit_small_patch16_224"}}, "encoder.name"),
    ("finetune", {"encoder": {"patch_size": 4}}, "encoder.patch_size"),
    ("finetune", {"encoder": {"depth": 3, "mean": [0.1, 0.1, 0.1]}}, "encoder.depth, encoder.mean have"),
    ("finetune", {"encoder": {"class_tokens": 2}}, "encoder.class_tokens"),
    ("finetune", {"masking": {"mask_ratio": 0.9}}, "masking.mask_ratio"),
    ("finetune", {"decoder": {"depth": 3}}, "decoder.depth"),
    ("finetune", {"target": {"kind": "hog"}}, "target.kind"),
    ("finetune", {"loss": "mse"}, "loss has"),
    ("finetune", {"cmae": {"weight": 2.0}}, "cmae.weight"),
    ("finetune-b", {"data": {"eval_crop_share": 0.5}}, "data.eval_crop_share"),
    ("finetune", {"data": {"alpha_background": 7}}, "data.alpha_background"),
    ("finetune", {"data": {"view_grey_share": 0.5}}, "data.view_grey_share"),
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
]


@pytest.mark.parametrize(("name", "fields", "said"), UNUSED, ids=lambda v: str(v))
def test_trainings_on_labels_refuse_what_they_do_not_use(
    name: str, fields: dict, said: str, model: Backbone
) -> None:
    images = ArraySource(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), list("abcd"))
    asked = merge(recipe(name), fields)
    with pytest.raises(LaminaError, match=rf"{said}.* no effect"):
        adapted(asked, model, images)


def test_what_is_used_or_is_the_models_own_is_taken(model: Backbone) -> None:
    images = ArraySource(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), list("abcd"))
    used = {
        "encoder": {"image_size": [64, 64], "drop_path": 0.2},
        "fusion": {"kind": "mff", "layers": [0, 11], "logit_lr_scale": 9.0},
        "supervised": {"mixup": 0.0, "head_std": 0.1},
        "data": {"flip": 0.0, "erase": 0.1, "workers": 0},
        "optim": {"base_lr": 1e-2},
        "train": {"epochs": 3.0},
    }
    run, _ = adapted(merge(recipe("finetune"), used), model, images)
    assert (run.encoder.image_size, run.data.erase, run.optim.base_lr) == ((64, 64), 0.1, 1e-2)
    again, _ = adapted(run, model, images)  # as by --config RUN/recipe.yaml
    assert again == run


@pytest.mark.parametrize(
    ("head", "fields", "said"),
    [
        ("linear", {"data": {"crop": "center"}}, "data.crop"),
        ("linear", {"data": {"flip": 0.1, "auto_augment": "rand-m9"}}, "data.auto_augment, data.flip have"),
        ("knn", {"data": {"erase": 0.5}}, "data.erase"),
    ],
)
def test_segmentation_refuses_what_it_does_not_use(
    head: str, fields: dict, said: str, model: Backbone
) -> None:
    asked = merge(segment_recipe(head=head), fields)
    with pytest.raises(LaminaError, match=rf"{said}.* no effect"):
        plan_segmentation(model, toy_data(), asked)


def test_detection_refuses_what_it_does_not_use(model: Backbone) -> None:
    pytest.importorskip("faster_coco_eval")
    asked = merge(detect_recipe(), {"data": {"crop": "center"}})
    with pytest.raises(LaminaError, match=r"data\.crop has no effect on detect-small"):
        plan_detection(model, detect_toys.toy_data(), asked)


def test_the_command_line_refuses_them_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [
        "evaluate",
        "finetune",
        NETWORK,
        DATA,
        "--out",
        str(tmp_path / "out"),
        "--mean",
        "0.1",
        "0.1",
        "0.1",
    ]
    assert main(words) == 2
    assert "encoder.mean has no effect on finetune" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    words = ["evaluate", "finetune", NETWORK, DATA, "--encoder", "vit_base_patch16_224"]
    assert main(words) == 2
    assert "give --network" in capsys.readouterr().err
