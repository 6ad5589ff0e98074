"""What a method and an encoder say of images that are not what they take."""

import inspect
import warnings

import numpy as np
import pytest
import torch

import lamina
from lamina.core.batch import Batch, images_of
from lamina.core.errors import LaminaError
from lamina.data.dense.open import open_maps
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.features.data import open_labelled
from lamina.interop.backbone import Backbone
from lamina.supervised.classifier import Supervised

SIZES = {"image_size": (16, 24), "patch_size": 8, "width": 16, "depth": 2, "heads": 2}


def method_of(fusion=None):
    torch.manual_seed(0)
    return lamina.mae(
        build_vit(EncoderOptions(**SIZES)), fusion, decoder_width=16, decoder_depth=1, decoder_heads=2
    )


def said(call):
    """The warnings of calls, each time it is called."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            call()
    return [str(warning.message) for warning in caught]


PIXELS = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
NORMALISED = (PIXELS / 255 - 0.45) / 0.22


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (PIXELS.float(), "above 1; divide 8-bit values by 255"),
        (NORMALISED, "normalised already"),
    ],
)
def test_another_range_of_values_is_said_once(images, says):
    method, encoder = method_of(), Backbone(method_of().encoder)
    for call in (lambda: method(images), lambda: encoder(images)):
        (warning,) = said(call)
        assert says in warning


@pytest.mark.parametrize(
    "images", [PIXELS, PIXELS / 255, PIXELS / 255 * 1.3 - 0.15, torch.zeros(2, 3, 16, 24)]
)
def test_images_as_they_should_be_are_taken_without_a_word(images):
    """Those that a bicubic resize made to overstep a little, too."""
    method = method_of()
    assert said(lambda: method(images)) == []


def test_values_are_looked_at_once(monkeypatch):
    """It waits for the device, which a step must not."""
    looked = []
    monkeypatch.setattr(torch, "aminmax", lambda x, real=torch.aminmax: looked.append(1) or real(x))
    method = method_of()
    for _ in range(3):
        method(PIXELS / 255)
    assert looked == [1]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.rand(2, 16, 24, 3), r"channels last.*permute\(0, 3, 1, 2\)"),
        (torch.rand(3, 16, 24), r"\(3, 16, 24\).*images\[None\]"),
        (torch.rand(2, 16, 24), r"\(2, 16, 24\)"),
        (torch.rand(2, 3, 4, 16, 24), r"\(2, 3, 4, 16, 24\), and the encoder takes \(B, C, H, W\)"),
        (torch.rand(2, 4, 16, 24), "4 channels, the encoder takes 3"),
        (torch.rand(2, 3, 16, 32), "16 x 32 px, the encoder takes 16 x 24"),
        (torch.rand(2, 3, 17, 24), "17 x 24 px, the encoder takes 16 x 24"),
        (torch.randint(0, 9, (2, 3, 16, 24)), "images are torch.int64"),
    ],
)
def test_another_layout_gets_one_line(images, says):
    method = method_of()
    forward = getattr(
        type(method).forward, "__wrapped__", type(method).forward
    )  # without the tests' own check
    with pytest.raises(LaminaError, match=says) as error:
        forward(method, images)
    assert "\n" not in str(error.value)


def test_what_is_no_tensor_gets_one_line():
    pair = (torch.rand(2, 3, 16, 24), torch.tensor([0, 1]))
    for given, says in (
        (pair, "not a tuple; of a DataLoader's"),
        (list(pair), "not a list"),
        (PIXELS.numpy(), "not a ndarray"),
    ):
        with pytest.raises(LaminaError, match=says):
            inspect.unwrap(images_of)(given)


def test_a_fusion_of_another_width_is_refused():
    for fusion in (lamina.MultiLevelFusion(24, 2, "all"), lamina.LayerMix(24, 2)):
        with pytest.raises(LaminaError, match="tokens of width 24, those of the encoder have 16"):
            method_of(fusion)
        with pytest.raises(LaminaError, match="tokens of width 24, those of the encoder have 16"):
            Supervised(method_of().encoder, fusion, 3)


class Made(torch.utils.data.Dataset):
    """Images in memory."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return PIXELS[0], index


@pytest.mark.parametrize("data", [Made(), np.zeros((4, 16, 24, 3), np.uint8), PIXELS, None])
def test_images_in_memory_are_no_paths(tmp_path, data):
    calls = [lambda: open_maps(data, "train")]
    if not isinstance(data, Made):  # a dataset is taken where whole images are
        calls += [lambda: lamina.pretrain(data, tmp_path / "run"), lambda: open_labelled(data)]
    for call in calls:
        with pytest.raises(LaminaError, match=f"data is a {type(data).__name__}, and lamina reads files"):
            call()
    assert not (tmp_path / "run").exists()


def test_a_batch_is_looked_at_alike():
    method = method_of()
    (warning,) = said(lambda: method(Batch(NORMALISED)))
    assert "normalised already" in warning
