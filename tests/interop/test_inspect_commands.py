"""Each command that `inspect` prints is run, on small images, with what stands for the user's own filled in."""

import re
import shlex

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.classifiers import options_of, task_of
from helpers.crossmae_files import cross_file
from helpers.foreign_files import (
    DEC_HEADS,
    DEPTH,
    HEADS,
    PATCH,
    SIZE,
    SIZES,
    WIDTH,
    beit_file,
    mae_file,
    mm_file,
    saved,
    table,
    transformers,
)
from helpers.runs import shaken, stripes_folder, toy_recipe, toy_run
from lamina.cli.entry import main
from lamina.core.choices import unread
from lamina.core.errors import LaminaError
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.options import FusionOptions
from lamina.interop.export import export_timm
from lamina.interop.export_classifier import export_supervised
from lamina.interop.inspect import inspect
from lamina.interop.load import load_encoder
from lamina.methods.catalog import recipe

SMALL = "--max-steps 1 --batch-size 2 --workers 0 --device cpu --monitor.images 0"
PARTS = {"masking.unit_px": "8", "decoder.width": "16", "decoder.depth": "1", "decoder.heads": "2"}
"""Of those that a recipe reads; others are refused."""
STUDENT = "--encoder.name vit_tiny_patch16_224 --encoder.depth 2 --patch-size 8 --fusion none"


def timm_file(path):
    options = EncoderOptions("vit_tiny_patch16_224", (SIZE, SIZE), PATCH, 3, WIDTH, DEPTH, HEADS)
    save_file(shaken(build_vit(options)).state_dict(), path)


def clip_folder(path):
    t = transformers()
    saved(t.CLIPVisionModelWithProjection(t.CLIPVisionConfig(**SIZES, projection_dim=24)), path)


def classifier(path):
    options = options_of("cls")
    export_supervised(task_of(options).eval(), options, FusionOptions(kind="none"), path)


def run(path):
    toy_run(path, toy_recipe(image_size=(SIZE, SIZE)))


def export(path):
    toy_run(path.parent / "its run", toy_recipe(image_size=(16, 64)))
    export_timm(path.parent / "its run", path)


def pickled(content):
    return lambda path: torch.save({"model": content()}, path)


PATHS = {
    "run": run,
    "encoder.safetensors": export,
    "classifier": classifier,
    "mae.pth": pickled(lambda: mae_file(table())),
    "someone's mff.pth": pickled(lambda: mm_file(table(True), 2)),
    "beit.pth": pickled(beit_file),
    "simmim.pth": pickled(lambda: beit_file("encoder.")),
    "crossmae.pth": pickled(cross_file),
    "timm.safetensors": timm_file,
    "clip": clip_folder,
}


FILLED_IN = {"DATA": "photos", "TIMM-NAME": "vit_tiny_patch16_224", "N": str(HEADS)}


@pytest.mark.parametrize("name", PATHS)
def test_each_command_that_is_printed_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    PATHS[name](tmp_path / name)
    found = inspect(name)
    size = re.search(r"images (\d+) x (\d+) px", found.architecture)
    height, width = (int(size[1]), int(size[2])) if size else (SIZE, SIZE)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        Image.effect_noise((width, height), 50 + i).convert("RGB").save(f"photos/{i}.png")
    assert len(found.commands) >= 2
    for i, line in enumerate(found.commands):
        words = [FILLED_IN.get(word, word) for word in shlex.split(line)]
        if words[0] == "python":
            code = words[2].replace("decoder_heads=N", f"decoder_heads={DEC_HEADS}")
            exec(code.replace("heads=N", f"heads={HEADS}").replace("LAYERS", "(0, 2)"), {})
            continue
        words = [f"run {i}" if word == "RUN" else word for word in words]
        if words[1] == "pretrain":
            idle = unread(recipe(words[words.index("--recipe") + 1] if "--recipe" in words else "mae"))
            for name, value in PARTS.items():
                words += [] if name in idle else [f"--{name.replace('_', '-')}", value]
            words += shlex.split(SMALL) + ([] if "--init" in words else shlex.split(STUDENT))
            words += [] if "--encoder.image-size" in words else ["--image-size", str(height), str(width)]
        elif words[1] == "embed":
            words += ["--workers", "0", "--device", "cpu"]
        assert main(words[1:]) == 0, line


@pytest.mark.parametrize(
    "verb",
    [
        "evaluate knn {} {} --workers 0 --device cpu --no-baselines",
        "evaluate linear {} {} --workers 0 --device cpu --no-baselines",
        "evaluate fewshot {} {} --per-class 1 --draws 1 --workers 0 --device cpu",
        "evaluate robustness {} {} --kinds brightness --images 3 --workers 0 --device cpu --out kept",
        "evaluate finetune {} {} --dry-run --out tuned",
        "evaluate all {} {} --out table --protocols knn --seeds 1 --workers 0 --device cpu",
        "analyze rank {} --data {} --images 4 --device cpu --out analyses",
    ],
)
def test_heads_of_an_unusual_width_are_given_on_the_command_line(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": mae_file(table())}, "mae.pth")
    stripes_folder(tmp_path / "labelled")
    words = shlex.split(verb.format("mae.pth", "labelled"))
    assert main(words) == 2
    assert "give the number with --encoder.heads N" in capsys.readouterr().err
    assert main([*words, "--encoder.heads", str(HEADS)]) == 0


def test_heads_that_are_known_are_not_changed(tmp_path):
    run(tmp_path / "run")
    export_timm(tmp_path / "run", tmp_path / "vit.safetensors")
    for name in ("run", "vit.safetensors"):
        with pytest.raises(LaminaError, match="has 3 attention heads, not 6"):
            load_encoder(tmp_path / name, encoder=EncoderOptions(heads=6))
    clip_folder(tmp_path / "clip")
    with pytest.raises(LaminaError, match="has 3 attention heads, not 6"):
        load_encoder(tmp_path / "clip", encoder=EncoderOptions(heads=6))
