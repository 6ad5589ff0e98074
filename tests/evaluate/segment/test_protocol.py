"""Segmentation from a run to a score: every head, exact resume, sizes and channels, and data that do not fit."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.dense_data import CLASSES, ToyMaps, toy_backbone, toy_data, toy_maps
from helpers.runs import toy_recipe, toy_run
from lamina.cli import entry as cli
from lamina.core.errors import LaminaError
from lamina.core.records import read_yaml, to_yaml
from lamina.data.dense.sources import IGNORE
from lamina.evaluate.dense.plot import palette
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.result_files import file_name
from lamina.evaluate.score import Score
from lamina.evaluate.segment.build import estimate_segmentation, plan_segmentation
from lamina.evaluate.segment.data import SegmentData, open_segment_data
from lamina.evaluate.segment.head_options import DPTOptions
from lamina.evaluate.segment.inference import ShownImage
from lamina.evaluate.segment.plot import draw
from lamina.evaluate.segment.protocol import evaluate_segment
from lamina.evaluate.segment.recipes import SegmentRecipe, segment_recipe, segment_recipes
from lamina.interop.load import load_encoder
from lamina.runs.run import Run
from lamina.train import checkpoint

pytest.importorskip("torchmetrics", reason="torchmetrics is not installed (extra: dense)")
pytest.importorskip(
    "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed (extra: dense)"
)
HEADS = ("linear", "upernet", "dpt", "knn")


def short(head="linear", steps=4, **window) -> SegmentRecipe:
    """A recipe for small images at some steps of 6."""
    chosen = segment_recipe(head=head)
    chosen = replace(
        chosen,
        window=replace(chosen.window, **window),
        data=replace(chosen.data, workers=0, prefetch_batches=1),
        train=replace(chosen.train, batch_size=6, device="cpu"),
    )
    if not chosen.trains:
        return chosen
    if head == "upernet":
        chosen = replace(chosen, uper=replace(chosen.uper, channels=16, aux_channels=8))
    if head == "dpt":
        chosen = replace(chosen, dpt=DPTOptions(channels=8))
    return replace(
        chosen,
        optim=replace(chosen.optim, warmup_steps=0),
        train=replace(chosen.train, max_steps=steps, log_every_steps=1),
    )


@pytest.mark.parametrize("head", HEADS)
def test_from_a_run_to_a_score(head, tmp_path: Path):
    toy_run(tmp_path / "run", toy_recipe())
    score = evaluate_segment(tmp_path / "run", toy_data(), recipe=short(head))
    assert (score.protocol, score.metric, score.n_train, score.n_test) == (f"segment-{head}", "mIoU", 12, 4)
    each = [score.more[f"IoU {name}"] for name in CLASSES]
    assert score.value == pytest.approx(sum(each) / 3)
    assert score.interval[0] <= score.value <= score.interval[1]
    assert {"pixel_accuracy", "mIoU_per_image"} < set(score.more)
    folder = tmp_path / "run" / "evaluations" / f"segment-{head}-toys-seed0"
    kept = Run(tmp_path / "run").results / f"segment-{head}-toys-{file_name(score.variant)}-seed0.json"
    assert Score.read(kept) == Score.read(folder / "score.json") == score
    assert Image.open(folder / "segmentation.png").size[0] > 500
    assert (folder / "checkpoints").exists() == (head != "knn")
    again = evaluate_segment(tmp_path / "run", toy_data(), RunOptions(resume=True), recipe=short(head))
    assert replace(again, seconds=0) == replace(score, seconds=0)
    with pytest.raises(LaminaError, match="already holds an evaluation"):
        evaluate_segment(tmp_path / "run", toy_data(), recipe=short(head))


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_what_pixels_say_is_found(head, tmp_path: Path):
    """Each class has a colour, and each patch one class: frozen features of an untrained network do."""
    recipe = short(head, steps=60)
    if recipe.trains:
        recipe = replace(recipe, optim=replace(recipe.optim, base_lr=0.2))
    score = evaluate_segment(toy_backbone(), toy_data(24, 6), RunOptions(tmp_path / "out"), recipe=recipe)
    assert score.value > 0.8
    assert score.more["pixel_accuracy"] > 0.85


def test_a_resumed_training_ends_as_one_that_was_not_stopped(tmp_path: Path):
    recipe = short("upernet", steps=4)
    recipe = replace(recipe, train=replace(recipe.train, checkpoint_every_steps=2))
    whole = evaluate_segment(toy_backbone(), toy_data(), RunOptions(tmp_path / "whole"), recipe=recipe)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-4")
    cut = evaluate_segment(
        toy_backbone(), toy_data(), RunOptions(tmp_path / "cut", resume=True), recipe=recipe
    )
    assert (cut.value, cut.interval, cut.more) == (whole.value, whole.interval, whole.more)
    first, second = (checkpoint.read(tmp_path / name / "checkpoints" / "step-4") for name in ("whole", "cut"))
    assert all(torch.equal(tensor, second.model[name]) for name, tensor in first.model.items())
    before = toy_backbone().encoder.vit.blocks[0].mlp.fc1.weight
    assert not torch.equal(first.model["encoder.vit.blocks.0.mlp.fc1.weight"], before)
    longer = replace(recipe, train=replace(recipe.train, max_steps=6))
    going = RunOptions(tmp_path / "cut", resume=True)
    with pytest.raises(LaminaError, match="max_steps"):
        evaluate_segment(toy_backbone(), toy_data(), going, recipe=longer)
    other = SegmentData("toys", toy_maps(12, noise=10.0), toy_data().test)  # the same names, other pixels
    with pytest.raises(LaminaError, match="these differ: images"):
        evaluate_segment(toy_backbone(), other, going, recipe=recipe)
    file = tmp_path / "cut" / "evaluation.yaml"
    kept = read_yaml(file)
    del kept["images"]  # as lamina wrote it before
    file.write_text(to_yaml(kept))
    assert evaluate_segment(toy_backbone(), toy_data(), going, recipe=recipe).value == whole.value


def test_masks_are_told_from_others_of_the_same_names(tmp_path: Path):
    """Copies of a folder, one of whose masks has other classes."""
    digests = []
    for name, number in (("a", 2), ("b", 2), ("c", 1)):
        digests.append(open_segment_data(mask_folder(tmp_path / name, number=number)).images_digest)
    assert digests[0] == digests[1] != digests[2]


def test_images_of_any_size_by_windows_of_the_encoders(tmp_path: Path):
    """Test images are larger than a window, and windows per forward do not matter."""
    data = SegmentData("sizes", toy_maps(12), toy_maps(3, (64, 80), seed=2))
    scores = [
        evaluate_segment(
            toy_backbone(), data, RunOptions(tmp_path / str(n)), recipe=short("linear", base=64, batch_size=n)
        )
        for n in (1, 5)
    ]
    assert scores[0].value == pytest.approx(scores[1].value, abs=1e-3)
    assert scores[0].settings["window"] == "32 x 48 px"
    assert scores[0].settings["stride"] == "21 x 32 px"


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels, tmp_path: Path):
    recipe = short("dpt", steps=1)
    recipe = replace(recipe, data=replace(recipe.data, jitter=(0.1, 0.1, 0.1, 0.1)))
    backbone = toy_backbone(in_chans=channels)
    score = evaluate_segment(
        backbone, toy_data(channels=channels), RunOptions(tmp_path / "out"), recipe=recipe
    )
    assert any("no colour jitter" in note for note in score.notes) == (channels == 4)


def test_the_encoder_grows_to_the_window(tmp_path: Path):
    """Positions are resampled to a window of another size, which is rounded up to whole patches."""
    planned = plan_segmentation(toy_backbone(), toy_data(), short("upernet", size=(60, 90)))
    assert planned.encoder.image_size == (64, 96)
    assert any("64 x 96 px" in note for note in planned.notes)
    score = evaluate_segment(
        toy_backbone(),
        toy_data(),
        RunOptions(tmp_path / "out"),
        recipe=short("upernet", steps=1, size=(60, 90)),
    )
    assert 0 <= score.value <= 1


def test_memory_grows_with_the_batch_and_a_frozen_encoder_keeps_nothing():
    data, found = toy_data(), {}
    for head in ("linear", "upernet", "dpt"):
        recipe = short(head)
        planned = [
            plan_segmentation(
                toy_backbone(), data, replace(recipe, train=replace(recipe.train, batch_size=n))
            )
            for n in (3, 6)
        ]
        three, six = (estimate_segmentation(each) for each in planned)
        assert six.activations == pytest.approx(2 * three.activations, rel=0.05)
        assert six.weights == three.weights
        found[head] = six
    assert found["linear"].parameters == 2 * 96 + 96 * 3 + 3
    encoder = sum(p.numel() for p in toy_backbone().encoder.parameters())
    assert found["linear"].weights > 4 * encoder
    assert found["upernet"].activations > 5 * found["linear"].activations


@pytest.mark.parametrize(("name", "gib"), [("ade20k-upernet", 28), ("ade20k-dpt", 23)])
def test_memory_of_a_vit_b_on_ade20k_is_as_the_docs_say(name, gib):
    """16 windows of 512 px, 150 classes. A block keeps at least 16 numbers for each channel of a token: its input, the
    normed input, queries, keys, values, attention's output, the same two again, and 8 of the MLP."""
    kinds = tuple(f"class {i}" for i in range(150))
    data = SegmentData("ade", *(replace(toy_maps(32), classes=kinds) for _ in range(2)))
    found = estimate_segmentation(
        plan_segmentation(load_encoder("vit_base_patch16_224", pretrained=False), data, segment_recipe(name))
    )
    assert round(found.total / 2**30) == gib
    assert found.activations > 12 * 16 * (16 * 1025 * 768) * 4


def test_published_recipes_are_published():
    """mmsegmentation's and implus' configurations, DINOv3's ADE20K linear head."""
    assert set(segment_recipes()) == {f"{h}-small" for h in HEADS} | {f"ade20k-{h}" for h in HEADS}
    for name, build in segment_recipes().items():
        recipe = build()
        assert recipe.name == name
        if name.startswith("ade20k"):
            assert (recipe.window.size, recipe.window.base, recipe.window.stride) == (
                (512, 512),
                512,
                (341, 341),
            )
            assert (recipe.window.scale, recipe.window.flip, recipe.train.batch_size) == ((0.5, 2.0), 0.5, 16)
    rates = {
        "ade20k-upernet": (1e-4, 0.05, 0.65, "poly", 160_000, 0.1, False),
        "ade20k-dpt": (6e-5, 0.01, None, "poly", 160_000, 0.0, False),
        "ade20k-linear": (1e-3, 1e-3, None, "cosine", 40_000, 0.0, True),
    }
    for name, expected in rates.items():
        recipe = segment_recipe(name)
        optim = recipe.optim
        found = (optim.base_lr * 16 / 256, optim.weight_decay, optim.layer_decay, optim.schedule)
        found += (recipe.train.max_steps, recipe.encoder.drop_path, recipe.encoder.frozen)
        assert found[0] == pytest.approx(expected[0])
        assert found[1:] == expected[1:]
        assert recipe.window.max_class_share == (1.0 if name == "ade20k-linear" else 0.75)
        assert (recipe.data.jitter is None) == (name == "ade20k-linear")
        assert (optim.betas, optim.warmup_steps, optim.min_lr) == ((0.9, 0.999), 1500, 0.0)
    upernet = plan_segmentation(
        load_encoder("vit_base_patch16_224", pretrained=False), toy_data(32), "upernet"
    )
    assert upernet.recipe.name == "upernet-small"
    with pytest.raises(LaminaError, match="did you mean ade20k-linear"):
        segment_recipe("ade20k-linar")
    with pytest.raises(LaminaError, match="has the head linear, not knn"):
        segment_recipe("ade20k-linear", "knn")


def one_class(n=6) -> ToyMaps:
    maps = toy_maps(n)
    maps.maps[:] = 1
    return maps


def odd(change) -> ToyMaps:
    maps = toy_maps(6)
    change(maps)
    return maps


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (one_class, "one class alone, 'wall'"),
        (lambda: odd(lambda m: m.maps.fill_(IGNORE)), "nothing is labelled in the training part"),
        (
            lambda: odd(lambda m: m.maps.fill_(7)),
            r"nothing is labelled in the training part \(6 unreadable\)",
        ),
        (lambda: odd(lambda m: setattr(m, "classes", ("a", "b", "c"))), "classes of odd differ"),
        (lambda: toy_maps(0), "odd has no training images"),
    ],
)
def test_maps_that_teach_nothing_are_found_first(train, sentence, tmp_path: Path):
    with pytest.raises(LaminaError, match=sentence):
        evaluate_segment(
            toy_backbone(),
            SegmentData("odd", train(), toy_maps(4)),
            RunOptions(tmp_path / "out"),
            recipe=short(),
        )
    assert not (tmp_path / "out").exists()


def test_a_class_out_of_range_is_a_bad_file(tmp_path: Path):
    train = toy_maps(12)
    train.maps[3, 20, 20] = 9
    data = SegmentData("odd", train, toy_maps(4, seed=1))
    score = evaluate_segment(toy_backbone(), data, RunOptions(tmp_path / "out"), recipe=short(steps=3))
    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["faults"] >= 1
    assert math.isfinite(score.value)
    test = toy_maps(4, seed=1)
    test.maps[2, 20, 20] = 9
    data = SegmentData("odd", toy_maps(12), test)
    score = evaluate_segment(toy_backbone(), data, RunOptions(tmp_path / "test"), recipe=short(steps=1))
    assert score.n_test == 3
    note = "1 of 4 test images could not be read: 1 labels that do not fit the image; the first is 1/2"
    assert note in score.notes


def test_batches_that_upernet_cannot_take(tmp_path: Path):
    recipe = short("upernet")
    for train in (
        replace(recipe.train, batch_size=1),
        replace(recipe.train, batch_size=5, micro_batch_size=2),
    ):
        with pytest.raises(LaminaError, match="two images or more"):
            plan_segmentation(toy_backbone(), toy_data(), replace(recipe, train=train))
    with pytest.raises(LaminaError, match="give --out FOLDER"):
        evaluate_segment(toy_backbone(), toy_data(), recipe=recipe)


def mask_folder(root: Path, n=6, number=2, masks=True) -> Path:
    """A folder as mask readers know it; classes 0, 1, `number`."""
    for part, count in (("training", n), ("validation", 3)):
        maps = toy_maps(count, seed=len(part))
        for i in range(count):
            values = maps.maps[i].numpy().copy()
            values[values == 2] = number
            for kind, array in (
                ("images", maps.images.images[i].permute(1, 2, 0).numpy()),
                ("annotations", values),
            ):
                folder = root / kind / part
                folder.mkdir(parents=True, exist_ok=True)
                if masks or kind == "images":
                    Image.fromarray(np.ascontiguousarray(array)).save(folder / f"{i}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


def test_the_command_line(tmp_path: Path, capsys):
    toy_run(tmp_path / "run", toy_recipe())
    data = mask_folder(tmp_path / "data")
    call = ["evaluate", "segment", str(tmp_path / "run"), str(data), "--device", "cpu", "--workers", "0"]
    assert cli.main([*call, "--head", "upernet", "--uper.channels", "16", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "6 training and 3 test images, 3 classes; 2000 steps of 6" in output
    assert "channels: 16" in output
    assert "MiB in fp32 for 6 images at a time" in output
    assert not (tmp_path / "run" / "evaluations").exists()
    call += ["--max-steps", "2", "--seed", "3", "--json", str(tmp_path / "score.json")]
    assert cli.main(call) == 0
    output = capsys.readouterr().out
    score = Score.read(tmp_path / "score.json")
    assert (score.seed, score.settings["recipe"], score.n_test) == (3, "linear-small", 3)
    for part in ("segment-linear", "mIoU", "IoU wall", "mIoU_per_image", f"{100 * score.value:.1f} %"):
        assert part in output


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (lambda root: mask_folder(root, masks=False), [], "6 of 6 images have no mask"),
        (lambda root: mask_folder(root, number=7), [], "nothing is labelled in the training part"),
        (lambda root: mask_folder(root, n=1), ["--head", "upernet"], "two images or more"),
        (lambda root: root, [], "there is no folder"),
        (lambda root: mask_folder(root), ["--recipe", "ade20k"], "there is no recipe 'ade20k'"),
        (
            lambda root: mask_folder(root),
            ["--head", "m2f"],
            "there is no head 'm2f'; there are: linear, upernet, dpt, knn",
        ),
        (
            lambda root: mask_folder(root),
            ["--linear.blocks", "5"],
            "linear.blocks 5 cannot be read: the encoder has blocks 0 to 2",
        ),
        (lambda root: mask_folder(root), ["--head", "knn", "--knn.block", "3"], "knn.block 3"),
    ],
)
def test_wrong_data_and_options_get_one_line(make, options, sentence, tmp_path: Path, capsys):
    toy_run(tmp_path / "run", toy_recipe())
    data = make(tmp_path / "data")
    assert (
        cli.main(["evaluate", "segment", str(tmp_path / "run"), str(data), "--device", "cpu", *options]) == 2
    )
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert output.startswith("lamina: ")
    assert sentence in output


def test_pictures_show_classes_in_colours_of_their_own():
    for n in (2, 7, 8, 150):
        colours = palette(n)
        assert colours.shape == (n + 1, 3)
        assert len({tuple(c.round(3)) for c in colours}) == n + 1
    truth = torch.tensor([[0, 1, IGNORE], [1, 1, 0]], dtype=torch.uint8)
    shown = ShownImage(
        "a$b$c", torch.zeros(3, 2, 3, dtype=torch.uint8), truth, torch.ones(2, 3, dtype=torch.uint8)
    )
    figure = draw([shown, shown], ("left", "right", "nowhere"))
    images = [panel.images[0].get_array() for panel in figure.axes]
    assert len(images) == 6
    assert np.allclose(images[1][0, 1], palette(3)[1])
    assert np.allclose(images[1][0, 2], palette(3)[-1])
    assert np.allclose(images[2], palette(3)[1])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["right", "left", "no class"]
