"""Folders that lamina writes, opened by transformers' own classes: the same numbers, the same preparation."""

import pytest
import timm
import torch
from PIL import Image

from helpers.classifiers import CLASSES, batch_of, options_of, task_of
from helpers.foreign_files import beit_recipe, transformers
from helpers.runs import NAMES, toy_recipe, toy_run
from lamina.fusion.options import FusionOptions
from lamina.interop.export import export_timm
from lamina.interop.export_classifier import export_supervised
from lamina.interop.load import load_encoder
from lamina.supervised.options import SupervisedOptions


@pytest.fixture
def images():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", [*NAMES, "beit"])
def test_auto_model_gives_the_features_of_the_run(name, tmp_path, images):
    t = transformers()
    recipe = beit_recipe() if name == "beit" else toy_recipe(name)
    toy_run(tmp_path / "run", recipe)
    export_timm(tmp_path / "run", tmp_path / "run" / "encoder")
    model = t.AutoModel.from_pretrained(tmp_path / "run" / "encoder").eval()
    encoder = load_encoder(tmp_path / "run").encoder
    with torch.no_grad():
        theirs = model(encoder.normalise(images)).last_hidden_state
        expected = encoder.norm(encoder(images, [encoder.depth - 1])[0])
        assert torch.equal(theirs, expected)
        vit = timm.create_model(f"local-dir:{tmp_path / 'run' / 'encoder'}", pretrained=True).eval()
        assert torch.equal(vit.forward_features(encoder.normalise(images)), expected)


def test_auto_image_processor_prepares_images_as_evaluations_do(tmp_path):
    t = transformers()
    toy_run(tmp_path / "run", toy_recipe(image_size=(32, 32), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)))
    export_timm(tmp_path / "run", tmp_path / "encoder")
    processor = t.AutoImageProcessor.from_pretrained(tmp_path / "encoder")
    encoder = load_encoder(tmp_path / "encoder").encoder
    grey = processor(Image.new("RGB", (40, 40), (128, 128, 128)), return_tensors="pt")["pixel_values"]
    expected = encoder.normalise(torch.full((1, 3, 32, 32), 128, dtype=torch.uint8))
    torch.testing.assert_close(grey, expected)
    assert processor.data_config["crop_pct"] == 0.875


@pytest.mark.parametrize(("network", "pool"), [("cls", "mean"), ("cls", "cls"), ("distilled", "cls")])
def test_auto_model_for_classification_gives_the_logits_and_the_names(network, pool, tmp_path):
    t = transformers()
    options = options_of(network)
    task = task_of(options, options=SupervisedOptions(pool=pool)).eval()
    names = [f"kind {i}" for i in range(CLASSES)]
    export_supervised(task, options, FusionOptions(kind="none"), tmp_path / "out", class_names=names)
    model = t.AutoModelForImageClassification.from_pretrained(tmp_path / "out").eval()
    images = batch_of().images
    with torch.no_grad():
        theirs = model(task.encoder.normalise(images)).logits
    torch.testing.assert_close(theirs, task.logits(images), rtol=1e-5, atol=1e-6)
    assert model.config.id2label == dict(enumerate(names))
