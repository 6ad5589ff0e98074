"""What is chosen for images and a machine: by a table, and never what somebody has given."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import lamina
from helpers.options import TINY_NETWORK
from lamina.cli.entry import main
from lamina.core.config import flatten, to_mapping, with_fields
from lamina.core.errors import LaminaError
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.encoder.build import build_vit
from lamina.methods.catalog import recipe
from lamina.plan import machine
from lamina.plan.choose import ROWS, choose, row_for
from lamina.plan.facts import ImageFacts, look_at
from lamina.plan.machine import Machine, matrix_rate
from lamina.plan.options import fitting_of
from lamina.plan.outlook import Outlook
from lamina.recipes.build import resolve
from lamina.recipes.recipe import Recipe
from lamina.runs.run import Run
from lamina.train.distributed import Ranks
from lamina.train.options import plan_run

GPU = Machine("cuda", "a GPU", ranks=1, cores=12, precision="bf16", rates={"bf16": 1e14, "fp32": 1e13})
CPU = Machine(rates={"fp32": 1e11})
TI, S, B = (f"vit_{size}_patch16_224" for size in ("tiny", "small", "base"))


def chosen(
    facts: ImageFacts, machine: Machine, given: dict[str, object] | None = None, timed: bool = False
) -> Recipe:
    start = with_fields(recipe("mae"), given or {})
    return with_fields(start, {c.name: c.value for c in choose(facts, machine, start, given or {}, timed)})


@pytest.mark.parametrize(
    ("facts", "machine", "network", "side", "patch", "epochs", "batch"),
    [
        (ImageFacts(100, 480, 640), GPU, TI, 224, 16, 2000, 16),
        (ImageFacts(512, 480, 640), GPU, TI, 224, 16, 1600, 64),
        (ImageFacts(5_000, 480, 640), GPU, TI, 224, 16, 800, 256),
        (ImageFacts(50_000, 28, 28), GPU, S, 28, 4, 400, 256),
        (ImageFacts(500_000, 375, 500), GPU, S, 224, 16, 200, 512),
        (ImageFacts(10_000_000, 375, 500), GPU, B, 224, 16, 100, 4096),
        (ImageFacts(512, 480, 640), CPU, TI, 64, 8, 1600, 64),
        (ImageFacts(50_000, 28, 28), CPU, TI, 28, 4, 40, 128),
        (ImageFacts(300, 100, 90), GPU, TI, 88, 8, 1600, 32),
        (ImageFacts(300, 17, 17), GPU, TI, 16, 2, 1600, 32),
    ],
)
def test_choices_by_the_table(facts, machine, network, side, patch, epochs, batch):
    found = chosen(facts, machine)
    assert (found.encoder.name, found.encoder.image_size, found.encoder.patch_size) == (
        network,
        (side, side),
        patch,
    )
    assert (found.train.epochs, found.train.batch_size) == (epochs, batch)
    assert found.optim.warmup_epochs == pytest.approx(0.05 * epochs)
    assert found.train.precision == machine.precision
    resolve(found)  # it can be built


@pytest.mark.parametrize("machine", [GPU, CPU])
def test_every_choice_makes_a_run(machine):
    """Of any number of images and any size: no larger than the images, no batch larger than the data, epochs that
    shrink as data grow, and steps that grow."""
    epochs, images = [], [1, 7, 40, 130, 900, 4_000, 30_000, 200_000, 3_000_000, 200_000_000]
    for n in images:
        for side in (8, 20, 31, 50, 63, 64, 100, 159, 160, 225, 4000):
            found = chosen(ImageFacts(n, side, side + 3), machine)
            height, width = found.encoder.image_size
            assert height == width <= side
            assert height % found.encoder.patch_size == 0
            assert 16 <= (height // found.encoder.patch_size) ** 2 <= 196
            assert found.train.batch_size <= n
            plan = plan_run(found.train, n)
            assert found.optim.warmup_epochs < found.train.epochs
        epochs.append(found.train.epochs)
        assert plan.total_steps * plan.batch_size <= max(1.1e9 if machine is GPU else 2.1e6, n * 1.01)
    assert epochs == sorted(epochs, reverse=True)


EVERYTHING = {
    "encoder.name": B,
    "encoder.image_size": (96, 96),
    "encoder.patch_size": 16,
    "encoder.in_chans": 3,
    "decoder.width": 64,
    "data.eval_crop_share": 0.5,
    "data.workers": 3,
    "optim.base_lr": 2e-4,
    "optim.warmup_epochs": 1.0,
    "train.precision": "fp32",
    "train.epochs": 10.0,
    "train.batch_size": 24,
}


def test_what_is_given_is_never_changed():
    """Each field alone, all of them together, and where the value is the recipe's own."""
    facts = ImageFacts(512, 40, 40, channels=1)
    for given in [*({name: value} for name, value in EVERYTHING.items()), EVERYTHING]:
        flat = flatten(to_mapping(chosen(facts, GPU, given)))
        for name, value in given.items():
            assert flat[name] == (list(value) if isinstance(value, tuple) else value), (name, given)
    own = flatten(to_mapping(recipe("mae")))
    for name in ("train.epochs", "train.batch_size", "optim.base_lr", "train.precision", "encoder.name"):
        assert flatten(to_mapping(chosen(facts, GPU, {name: own[name]})))[name] == own[name]


def test_weights_decide_the_network():
    facts = ImageFacts(512, 40, 40)
    left = fitting_of(("train.epochs",), None, "weights.safetensors", None)
    assert left.choose
    start = recipe("mae")
    found = with_fields(start, {c.name: c.value for c in choose(facts, GPU, start, left.given)})
    assert found.encoder == start.encoder
    assert found.decoder == start.decoder
    assert found.train.precision == "bf16"
    assert not fitting_of((), "mae-b", None, None).choose


@pytest.mark.parametrize(
    ("named", "given", "said"),
    [("mae-b", (), True), ("mae-b", ("train.precision",), False), (None, (), False)],
)
def test_a_recipes_precision_that_is_slow_on_a_gpu_is_a_sentence(monkeypatch, named, given, said):
    """10 times as fast by the rates of `GPU`."""
    import lamina.plan.fit as fit

    monkeypatch.setattr(fit, "this_machine", lambda ranks: GPU)
    source = open_source("sample:photos?crop=32&most=2")
    _, outlook = fit.fit_to_data(
        recipe(named or "mae"), source, Ranks(0, 1, torch.device("cpu")), fitting_of(given, named, None, None)
    )
    assert outlook is not None
    assert any("10 times as fast with --precision bf16" in line for line in outlook.advice) == said


def test_what_a_given_option_decides_stays_too():
    facts = ImageFacts(512, 480, 640)
    named = chosen(facts, GPU, {"encoder.name": "vit_huge_patch14_224"})
    with torch.device("meta"):
        embed = build_vit(named.encoder).patch_embed
    assert (embed.img_size, embed.patch_size) == ((224, 224), (14, 14))
    assert (named.decoder.width, named.decoder.depth) == (512, 8)
    assert chosen(facts, GPU, {"train.max_steps": 7}).train.epochs == recipe("mae").train.epochs
    # Of 40 steps of 16 images, of 512: 1.25 epochs; 5 % of them.
    short = chosen(facts, GPU, {"train.max_steps": 40, "train.batch_size": 16})
    assert short.optim.warmup_epochs == pytest.approx(0.0625)
    assert chosen(facts, GPU, {"encoder.image_size": (32, 32)}).encoder.patch_size == 4
    # Three GPUs share a batch.
    three = Machine("cuda", ranks=3, cores=4, precision="bf16")
    assert chosen(facts, three).train.batch_size % 3 == 0


def test_grey_images_get_an_encoder_of_one_channel():
    found = chosen(ImageFacts(512, 64, 64, channels=1), GPU).encoder
    assert (found.in_chans, found.mean, found.std) == (1, "auto", "auto")


def saved(folder: Path, n: int, shape: tuple[int, ...]) -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        Image.fromarray(np.full(shape, 40 * i % 256, np.uint8)).save(folder / f"{shape}-{i}.png")
    return folder


def test_images_are_looked_at(tmp_path):
    """Sizes are medians of height and width; channels are those of all that are looked at, without alpha."""
    source = open_source(str(saved(tmp_path / "grey", 3, (20, 30))))
    found = look_at(source, DataOptions())
    assert (found.images, found.height, found.width, found.channels) == (3, 20, 30, 1)
    assert str(found) == "3 images of about 30 x 20 px, grey"
    mixed = open_source(str(saved(tmp_path / "grey", 2, (20, 40, 3))))
    assert look_at(mixed, DataOptions()).channels == 3
    alpha = open_source(str(saved(tmp_path / "alpha", 2, (20, 30, 4))))
    assert look_at(alpha, DataOptions()).channels == 3
    (tmp_path / "grey" / "bad.png").write_bytes(b"no image")
    assert look_at(open_source(str(tmp_path / "grey")), DataOptions()).images == 6


def test_a_matrix_product_takes_time():
    assert 1e7 < matrix_rate(torch.device("cpu"), torch.float32) < 1e15


@pytest.mark.parametrize(
    ("bf16", "half_rate", "precision"),
    [(True, 1.9, "bf16"), (False, 1.9, "fp32"), (False, 8.0, "fp16")],
)
def test_a_gpu_takes_bf16_where_it_has_it_and_fp16_where_that_is_fast(
    bf16, half_rate, precision, monkeypatch
):
    """TF32 is half as fast as bf16; old kinds multiply fp16 more slowly than fp32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    rate = {torch.float32: 1e13}
    monkeypatch.setattr(machine, "matrix_rate", lambda device, dtype: rate.get(dtype, half_rate * 1e13))
    assert machine.this_machine(Ranks(0, 1, torch.device("cuda", 0))).precision == precision


@pytest.mark.parametrize(
    ("facts", "changes", "said"),
    [
        (ImageFacts(5000, 30, 40), {}, "most of what it sees is interpolated"),
        (ImageFacts(50, 300, 400), {"train.batch_size": 64}, "more than once"),
        (ImageFacts(5000, 300, 400), {}, None),
    ],
)
def test_images_that_do_not_fit_are_a_sentence(facts, changes, said):
    found = Outlook(facts, GPU).warnings(
        resolve(with_fields(recipe("mae-s"), {"train.batch_size": 32, **changes}))
    )
    assert ([] if said is None else [said]) == [said for line in found if said is None or said in line]


def test_the_time_is_operations_over_the_rate_or_the_loaders(monkeypatch):
    """1,000 images once, 2 GFLOP each on 0.5 x 1e11 operations/s: 40 s. Decoding alone: 0.1 s x 1.6 over 2 workers."""
    import lamina.plan.outlook as outlook

    class TwoGflop:
        training = 2e9

    monkeypatch.setattr(outlook, "count_flops", lambda recipe: TwoGflop)
    run = with_fields(recipe("mae"), {"train.epochs": 1.0, "train.batch_size": 10})
    assert Outlook(ImageFacts(1000), CPU).seconds(run) == pytest.approx(40)
    assert Outlook(ImageFacts(1000, decode_seconds=0.1), CPU).seconds(run) == pytest.approx(80)
    assert Outlook(ImageFacts(1000), Machine()).seconds(run) is None


def test_the_page_shows_the_table():
    page = (Path(__file__).parents[2] / "docs" / "which-recipe.md").read_text()
    rows = re.findall(r"^\| up to ([\d,]+) \| ViT-(\w+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.M)
    number = [
        tuple(int(cell.replace(",", "")) for cell in (n, epochs, batch)) for n, _, epochs, batch in rows
    ]
    assert number == [(row.images, row.epochs, row.batch_size) for row in ROWS[:-1]]
    assert [size.lower() for _, size, *_ in rows] == [row.size for row in ROWS[:-1]]
    last = re.search(r"^\| more \| ViT-(\w+) \| ([\d,]+) \| ([\d,]+) \|$", page, re.M)
    assert last is not None
    assert (last[1].lower(), int(last[2]), int(last[3].replace(",", ""))) == ROWS[-1][1:]
    assert row_for(10**12) is ROWS[-1]


SMALL = {**TINY_NETWORK, "monitor.images": 0}


def test_a_run_writes_down_what_was_chosen_and_resumes(tmp_path, capsys):
    """From Python and from the command line: the recipe holds numbers, and a resume changes none of them."""
    data, out = saved(tmp_path / "photos", 12, (24, 24, 3)), tmp_path / "run"
    fields = {**SMALL, "data.workers": 0, "train.max_steps": 4}
    lamina.pretrain(str(data), out, device="cpu", batch_size=4, options=fields)
    kept = Run(out).recipe()
    assert kept.optim.warmup_epochs == pytest.approx(0.05 * 4 * 4 / 12, rel=0.01)
    assert kept.train.batch_size == 4
    said = capsys.readouterr().out
    assert "12 images of about 24 x 24 px" in said
    assert "chosen for these images and this machine: " in said
    assert "warm-up" in said
    before = (out / "recipe.yaml").read_bytes()
    words = [
        word
        for name, value in {**fields, "train.batch_size": 4, "train.device": "cpu"}.items()
        for word in _flag(name, value)
    ]
    assert main(["pretrain", str(data), "--out", str(out), "--resume", *words]) == 0
    assert (out / "recipe.yaml").read_bytes() == before
    # A recipe that is named is taken as it is.
    lamina.pretrain(
        str(data),
        tmp_path / "named",
        "mae-small",
        device="cpu",
        batch_size=4,
        options={**fields, "encoder.image_size": (24, 24), "encoder.patch_size": 8},
    )
    assert Run(tmp_path / "named").recipe().optim.warmup_epochs == 5.0
    assert "chosen for" not in capsys.readouterr().out


def _flag(name: str, value: object) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    return [f"--{name.replace('_', '-')}", *map(str, values)]


def test_a_dry_run_says_device_precision_memory_steps_time_and_reasons(tmp_path, capsys):
    data = saved(tmp_path / "photos", 12, (64, 64, 3))
    assert main(["pretrain", str(data), "--out", str(tmp_path / "run"), "--device", "cpu", "--dry-run"]) == 0
    said = capsys.readouterr().out
    shown = yaml.safe_load(said[said.index("name: ") : said.index("12 images, ")])
    assert shown["train"]["epochs"] == 2000
    for words in (
        "12 images, ",
        "parameters to train; about ",
        "device: ",
        "time: about ",
        "train.epochs",
        "2000: for 12 images",
    ):
        assert words in said
    assert f"in {shown['train']['precision']} for " in said


def test_two_lengths_are_refused(tmp_path):
    for name in ("epochs", "max_steps"):
        with pytest.raises(LaminaError, match="time budget"):
            lamina.pretrain("sample:photos", tmp_path / "run", time="1h", **{name: 3})
