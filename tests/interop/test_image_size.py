"""An encoder at another image size: timm's own resampling, the same evaluation by hand, and refusals."""

import json

import numpy as np
import pytest
import torch
from timm.layers.pos_embed import resample_abs_pos_embed

from helpers.runs import stripes_data, stripes_folder, toy_recipe, toy_run
from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.evaluate.probes import evaluate_knn
from lamina.interop.backbone import Backbone
from lamina.interop.load import as_backbone, load_encoder, untrained_like
from lamina.interop.resizing import at_image_size


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mff"
    toy_run(folder, toy_recipe())
    return folder


def test_positions_are_timms_resampling_and_nothing_else_changes(run):
    small, large = load_encoder(run), load_encoder(run, image_size=(48, 64))
    assert (large.image_size, large.encoder.grid) == ((48, 64), (6, 8))
    before, after = (b.encoder.vit.state_dict() for b in (small, large))
    expected = resample_abs_pos_embed(
        before["pos_embed"], new_size=[6, 8], old_size=[4, 6], num_prefix_tokens=1
    )
    torch.testing.assert_close(after["pos_embed"], expected, rtol=0, atol=0)
    assert all(torch.equal(before[name], after[name]) for name in before if name != "pos_embed")
    assert large(torch.rand(2, 3, 48, 64), "fused").patches.shape == (2, 48, 96)
    assert large.origin.resized == (
        "images of 48 x 64 px, in place of the 32 x 48 px of its training: positions resampled, from 4 x 6 to "
        "6 x 8 patches"
    )
    assert at_image_size(small, (32, 48)) is small
    assert as_backbone(small) is small
    assert [as_backbone(each, None, (48, 64)).image_size for each in (run, small)] == [(48, 64)] * 2
    twin = untrained_like(large)
    assert twin.image_size == (48, 64)
    theirs = untrained_like(small).encoder.vit.state_dict()
    assert torch.equal(
        twin.encoder.vit.state_dict()["blocks.0.attn.qkv.weight"], theirs["blocks.0.attn.qkv.weight"]
    )


@pytest.mark.parametrize(
    ("size", "words"),
    [((33, 48), "is not a multiple"), ((0,), "is not a multiple"), ((1, 2, 3), "3 numbers")],
)
def test_sizes_that_do_not_fit_are_refused(run, size, words):
    with pytest.raises(LaminaError, match=words):
        load_encoder(run, image_size=size)
    loaded = load_encoder(run)
    with pytest.raises(LaminaError, match="load it by its name"):
        at_image_size(Backbone(loaded.encoder, loaded.fusion), (48,))


def test_an_evaluation_at_another_size_says_so_and_has_a_file_of_its_own(run):
    here = {"workers": 0, "device": "cpu"}
    plain = evaluate_knn(run, stripes_data(30, 9), **here)
    large = evaluate_knn(run, stripes_data(30, 9), image_size=(48, 64), **here)
    assert any("positions resampled" in note for note in large.notes)
    assert not any("positions" in note for note in plain.notes)
    assert (plain.variant, large.variant) == ("", "image_size 48 64")
    names = {file.name for file in (run / "results").iterdir()}
    assert {"knn-stripes-seed0.json", "knn-stripes-image-size-48-64-seed0.json"} <= names


def test_embed_from_the_shell(run, tmp_path, capsys):
    folder, out = stripes_folder(tmp_path / "data"), tmp_path / "x.npz"
    asked = ["embed", str(run), folder, "--out", str(out), "--workers", "0", "--device", "cpu"]
    assert main([*asked, "--image-size", "16"]) == 0
    assert "from 4 x 6 to 2 x 2 patches" in " ".join(capsys.readouterr().out.split())
    saved = np.load(out)
    assert json.loads(str(saved["about"]))["image_size"] == [16, 16]
    assert saved["features"].shape == (27, 96)
    assert main([*asked, "--image-size", "17"]) == 2
    assert "is not a multiple of the encoder's patch" in capsys.readouterr().err
