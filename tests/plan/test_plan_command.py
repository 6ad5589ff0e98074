"""`lamina plan`: the numbers of the page follow from its parts."""

from __future__ import annotations

import json

import pytest

from lamina.cli.entry import main
from lamina.cli.plan import image_count
from lamina.core.config import with_fields
from lamina.core.errors import LaminaError
from lamina.methods.catalog import recipe
from lamina.plan.gpus import GPUS, gpu
from lamina.plan.memory import estimate_memory
from lamina.recipes.build import resolve


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("10M", 10_000_000),
        ("1.28M", 1_280_000),
        ("50000", 50_000),
        ("50_000", 50_000),
        ("2b", 2 * 10**9),
        ("3k", 3000),
    ],
)
def test_numbers_of_images(text, count):
    assert image_count(text) == count


@pytest.mark.parametrize("text", ["many", "0", "-3", "1.5", "10 GB", ""])
def test_what_is_no_number_of_images(text):
    with pytest.raises(LaminaError, match="number of images"):
        image_count(text)


def test_a_vit_h_on_64_gpus(tmp_path, capsys):
    """Weights of a ViT-H with MAE's decoder: 630 + 8 + 26 million; 16 bytes for each with AdamW in fp32. The time is
    images times operations over 64 x 989.4 TFLOP/s."""
    file = tmp_path / "plan.json"
    call = [
        "plan",
        "--encoder",
        "vit_huge_patch14_224",
        "--images",
        "10M",
        "--gpus",
        "64",
        "--json",
        str(file),
    ]
    assert main(call) == 0
    said = capsys.readouterr().out
    for words in ("ViT-H/14 at 224 px", "10,000,000 images", "4,096", "64 x H100 SXM", "FSDP2", "MFU"):
        assert words in said
    found = json.loads(file.read_text())
    assert found["parameters"]["encoder"] == pytest.approx(630.4e6, rel=1e-3)
    assert found["parameters"]["all"] == pytest.approx(664.8e6, rel=1e-3)
    ddp, fsdp = found["ddp"], found["fsdp"]
    fixed = ddp["weights"] + ddp["gradients"] + ddp["optimizer"]
    assert fixed == pytest.approx(16 * found["parameters"]["all"], rel=2e-3)
    assert fsdp["weights"] == ddp["weights"] / 64
    assert ddp["recomputed"] < 0.5 * ddp["activations"]
    assert found["micro_batch_size"] == 4096 // 64
    work, flops = found["work"], found["flops"]
    assert work["batch_size"] == 4096
    for pace, mfu in zip(found["paces"], (0.2, 0.4), strict=True):
        seconds = work["steps"] * 4096 * flops["training"] / (64 * 989.4e12 * mfu)
        assert pace["hours"] == pytest.approx(seconds / 3600)
        assert pace["decode_cores"] == pytest.approx(pace["images_per_second"] / 300, abs=1)
    # The largest micro-batch fills the memory, and one more image does not fit.
    same = {"encoder.name": "vit_huge_patch14_224", "train.precision": "bf16"}
    totals = [
        estimate_memory(resolve(with_fields(recipe("mae"), same)), found["most_images"] + i).total
        for i in (0, 1)
    ]
    assert totals[0] <= 0.92 * 80e9 < totals[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "1M", "--gpus", "7", "--batch-size", "100"], "multiple of 7"),
        (["--images", "1M", "--gpu", "v100", "--precision", "bf16"], "no bfloat16"),
    ],
)
def test_what_makes_no_plan_is_one_line(words, said, capsys):
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


@pytest.mark.parametrize("name", ["beit-b", "eva-b", "deit-small", "cmae-small", "crossmae-s"])
def test_every_kind_of_method_has_a_plan(name, capsys):
    assert main(["plan", "--images", "50k", "--recipe", name, "--gpus", "2"]) == 0
    said = capsys.readouterr().out
    assert ("teacher or tokenizer comes on top" in said) == (name in ("beit-b", "eva-b"))


def test_gpus_without_bf16_plan_in_fp16(capsys):
    assert main(["plan", "--images", "5k", "--gpu", "t4"]) == 0
    assert ", fp16: 5,000 images" in capsys.readouterr().out
    assert len({each.name for each in GPUS}) == len(GPUS)
    assert gpu("a100").peak("bf16") == 312e12
    assert gpu("a100").peak("fp32") == 156e12, "TF32 of the data sheet"
    assert gpu("v100").peak("fp32") == 15.7e12, "it has no TF32"


def test_the_help_names_every_gpu(capsys):
    assert main(["plan", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(each.name in said for each in GPUS)
    assert "--images N" in said
    assert "--epochs" in said
