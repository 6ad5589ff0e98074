"""What the report shows of a method: exact where the answer is known, and without a trace in the training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor, nn

from helpers.report_runs import toy_gallery, toy_method, toy_recipe
from lamina.analyze.measures.patch_maps import principal
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.patches import take
from lamina.core.shown_pixels import displayable, to_uint8
from lamina.data.sources import ArraySource
from lamina.mim import Prediction
from lamina.report import reconstructions as strips_module
from lamina.report.gallery import Gallery, write_pictures
from lamina.report.model_pictures import patch_features, pca_map, reconstruct
from lamina.report.picture_store import AlbumWriter, read_album
from lamina.report.reconstructions import reconstruct_files, remark
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run
from lamina.targets.options import TargetOptions
from lamina.targets.pixels import Pixels

PATCH, GRID = (4, 2), (3, 5)
SIZE = (PATCH[0] * GRID[0], PATCH[1] * GRID[1])


class Oracle(nn.Module):
    """Predicts the target itself at the hidden patches (or `guess`, where it is given)."""

    def __init__(self, channels: int, norm_pix: bool, guess: float | None = None) -> None:
        super().__init__()
        self.target = Pixels(PATCH, [0.4] * channels, [0.3] * channels, norm_pix=norm_pix)
        self.encoder = SimpleNamespace(patch=PATCH, grid_of=lambda images: GRID)
        self.guess = guess

    def predict(self, batch: Batch) -> Prediction:
        assert batch.mask is not None
        where = batch.mask.to(torch.uint8).argsort(dim=1, stable=True)[:, -int(batch.mask[0].sum()) :]
        values = take(self.target(batch.images)[0], where)
        return Prediction(
            values if self.guess is None else torch.full_like(values, self.guess), where, batch.mask
        )


def example(channels: int) -> Batch:
    generator = torch.Generator().manual_seed(channels)
    images = torch.randint(256, (2, channels, *SIZE), generator=generator, dtype=torch.uint8)
    mask = torch.stack([torch.randperm(15, generator=generator) < 11 for _ in range(2)])
    return Batch(images, mask=mask)


def pixels_of(image: Tensor, patch: int) -> Tensor:
    """The pixels of one patch, by slicing."""
    row, column = divmod(patch, GRID[1])
    return image[..., row * 4 : row * 4 + 4, column * 2 : column * 2 + 2]


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_perfect_prediction_is_the_original(channels: int, norm_pix: bool) -> None:
    batch = example(channels)
    made = reconstruct(Oracle(channels, norm_pix), batch)
    assert torch.equal(made.original, batch.images)
    assert torch.equal(made.reconstruction, batch.images)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_prediction_of_zero_is_each_true_patchs_mean(channels: int) -> None:
    """With norm_pix the predicted zero means: the mean over the patch's pixels and channels, normalised."""
    batch = example(channels)
    made = reconstruct(Oracle(channels, True, guess=0.0), batch)
    assert batch.mask is not None
    for i in range(2):
        for patch in range(15):
            truth, got = pixels_of(batch.images[i], patch), pixels_of(made.reconstruction[i], patch)
            if batch.mask[i, patch]:
                assert (got.double() - truth.double().mean()).abs().max() <= 0.5 + 1e-3
            else:
                assert torch.equal(got, truth), "visible patches are pasted"


def test_the_masked_input_hides_the_hidden_patches_and_nothing_else() -> None:
    batch = example(3)
    made = reconstruct(Oracle(3, True), batch)
    assert batch.mask is not None
    for i in range(2):
        for patch in range(15):
            hidden = bool(batch.mask[i, patch])
            expected = torch.full_like(pixels_of(batch.images[i], patch), 128) if hidden else None
            expected = pixels_of(batch.images[i], patch) if expected is None else expected
            assert torch.equal(pixels_of(made.masked[i], patch), expected)
            assert bool(pixels_of(made.hidden[i], patch).all()) is hidden
            assert bool(pixels_of(made.hidden[i], patch).any()) is hidden


@pytest.mark.parametrize("in_chans", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_a_real_method_with_any_channels_pastes_what_is_visible(in_chans: int, dtype: torch.dtype) -> None:
    method = toy_method(in_chans=in_chans)
    images = torch.randint(256, (2, in_chans, 16, 16), dtype=torch.uint8)
    made = reconstruct(method, Batch(images if dtype == torch.uint8 else images / 255))
    assert torch.equal(made.original, images)
    seen = ~made.hidden[:, None].expand_as(images)
    assert torch.equal(made.reconstruction[seen], images[seen])
    assert made.hidden.float().mean() == 0.75
    assert displayable(images).shape[1] == (1 if in_chans == 1 else 3)


def test_looking_at_a_method_leaves_no_trace(tmp_path: Path) -> None:
    method = toy_method().train()
    method.decoder.eval()  # as a frozen part would be
    before = {name: value.clone() for name, value in method.state_dict().items()}
    modes, state = [m.training for m in method.modules()], torch.get_rng_state()
    write_pictures(method, toy_gallery(["a"] * 5, []), tmp_path, 1)
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in method.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert all(p.grad is None for p in method.parameters())


def test_pictures_of_the_same_weights_are_the_same(tmp_path: Path) -> None:
    method, gallery = toy_method(), toy_gallery(["a", "b", "c", "d"], [])
    write_pictures(method, gallery, tmp_path / "one", 1)
    write_pictures(method, gallery, tmp_path / "two", 1)
    files = sorted(p.name for p in (tmp_path / "one").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)


def test_principal_components_are_those_of_scikit_learn() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, 12, generator=generator) @ torch.randn(12, 12, generator=generator) + 3
    ours, share = principal(rows, 3)
    peer = PCA(3, svd_solver="full")
    theirs = peer.fit_transform(rows.double().numpy())
    signs = np.sign((ours.numpy() * theirs).sum(0))
    np.testing.assert_allclose(ours.numpy(), theirs * signs, atol=1e-9)
    np.testing.assert_allclose(share.numpy(), peer.explained_variance_ratio_, rtol=1e-5)


def test_a_pca_map_paints_each_patch_by_its_components() -> None:
    """Features on three axes of falling spread: red, green and blue are monotone in them."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.rand(2, 6, 3, generator=generator) * torch.tensor([9.0, 3.0, 1.0])
    made = pca_map(axes, (2, 3))
    assert made.colours.shape == (2, 3, 2, 3)
    assert sum(made.explained) == pytest.approx(1)
    peer = PCA(3).fit_transform(axes.reshape(12, 3).numpy())
    painted = made.colours.permute(0, 2, 3, 1).reshape(12, 3).numpy().astype(float)
    for component in range(3):
        assert abs(np.corrcoef(peer[:, component], painted[:, component])[0, 1]) > 0.99
    assert made.colours.amin() == 0
    assert made.colours.amax() == 255
    with pytest.raises(LaminaError, match="3 dimensions"):
        pca_map(axes[..., :2], (2, 3))


def test_constant_features_make_a_map_all_the_same() -> None:
    made = pca_map(torch.ones(2, 4, 5), (2, 2))
    assert len(made.colours.unique()) == 1
    assert made.explained == (0.0, 0.0, 0.0)


def test_patch_features_do_not_depend_on_the_batching() -> None:
    method, batch = toy_method(), toy_gallery(["a"] * 7, []).batch
    whole, parts = patch_features(method, batch, 7), patch_features(method, batch, 3)
    assert whole.shape == (7, 16, 24)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_an_album_comes_back_as_it_was_kept(channels: int, tmp_path: Path) -> None:
    made = reconstruct(Oracle(channels, True), example(channels))
    writer = AlbumWriter(tmp_path, 12)
    writer.reconstructions(made, ["one", "two"])
    assert read_album(tmp_path, []).step is None, "pictures are not shown before the index is there"
    writer.close()
    notes: list[str] = []
    album = read_album(tmp_path, notes)
    assert notes == []
    assert (album.step, [r.name for r in album.restored]) == (12, ["one", "two"])
    assert (album.restored[0].original.width, album.restored[0].original.height) == (SIZE[1], SIZE[0])
    saved = np.asarray(Image.open(tmp_path / "original-1.png"))
    expected = displayable(made.original)[1].permute(1, 2, 0).squeeze(-1).numpy()
    np.testing.assert_array_equal(saved, expected)
    masked = np.asarray(Image.open(tmp_path / "masked-1.png"))
    np.testing.assert_array_equal(masked[..., 3] == 0, made.hidden[1].numpy())


def test_large_pictures_are_made_smaller_for_the_page(tmp_path: Path) -> None:
    writer = AlbumWriter(tmp_path, 1)
    colours = pca_map(torch.randn(1, 4, 6), (2, 2))
    writer.pca(torch.zeros(1, 3, 600, 300), colours, ["tall"])
    writer.close()
    mapped = read_album(tmp_path, []).mapped[0]
    assert (mapped.original.width, mapped.original.height) == (72, 144)
    assert (mapped.colours.width, mapped.colours.height) == (2, 2), "one pixel a patch"


def test_rounding_to_eight_bits() -> None:
    values = torch.arange(256) / 255
    assert torch.equal(to_uint8(values), torch.arange(256, dtype=torch.uint8))
    assert to_uint8(torch.tensor([-1.0, 2.0, 0.5 / 255 + 1e-4])).tolist() == [0, 255, 1]


def test_files_become_strips_of_three_panels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, method = toy_recipe(), toy_method()
    monkeypatch.setattr(strips_module, "load_method", lambda run, step: (method.eval(), recipe))
    files = []
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "same name.png")
        Image.fromarray(np.full((16, 16, 3), 80 * i + 40, np.uint8)).save(files[-1])
    out = tmp_path / "out"
    written = reconstruct_files(tmp_path, files, out)
    assert [p.name for p in written] == ["same name.png", "same name-2.png"]
    strip = np.asarray(Image.open(written[1]))
    assert strip.shape == (16, 3 * 16 + 2 * 8, 4)
    assert (strip[:, :16, :3] == 120).all()
    hidden = strip[:, 24:40, 3] == 0
    assert hidden.mean() == 0.75
    assert (strip[:, 48:, :3][~hidden] == 120).all(), "visible patches are pasted"
    again = reconstruct_files(tmp_path, files, tmp_path / "again")
    assert [a.read_bytes() for a in again] == [w.read_bytes() for w in written]


def test_a_picture_that_cannot_be_written_whole_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    """A disk that is full in the middle of a PNG: what was there stays, and nothing half written."""
    recipe, method = toy_recipe(), toy_method()
    monkeypatch.setattr(strips_module, "load_method", lambda run, step: (method.eval(), recipe))
    Image.effect_noise((60, 40), 50).convert("RGB").save(tmp_path / "a.png")
    out = tmp_path / "out"
    (written,) = reconstruct_files(tmp_path, [tmp_path / "a.png"], out)
    before, plain = written.read_bytes(), Image.Image.save

    def full(self, file, *args, **kwargs):
        plain(self, file, *args, **kwargs)
        Path(file).write_bytes(Path(file).read_bytes()[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        reconstruct_files(tmp_path, [tmp_path / "a.png"], out)
    assert written.read_bytes() == before
    assert list(out.iterdir()) == [written]


def test_what_a_reconstruction_is_given_is_said(tmp_path: Path) -> None:
    for k, (target, words) in enumerate(
        [
            (TargetOptions(norm_pix=True), ("mean and deviation of the true patch",)),
            (TargetOptions(norm_pix=True, low_pass=0.5), ("mean and deviation", "low-passed")),
            (TargetOptions(norm_pix=False), ()),
            (TargetOptions(kind="hog"), ()),
        ]
    ):
        Run(tmp_path / str(k)).start(replace(toy_recipe(), target=target), DataFacts("", 1, "0" * 64), None)
        said = remark(tmp_path / str(k))
        assert (said is None) == (not words)
        assert all(word in (said or "") for word in words)


def test_an_unreadable_file_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strips_module, "load_method", lambda run, step: (toy_method(), toy_recipe()))
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(LaminaError, match=r"bad\.jpg cannot be read"):
        reconstruct_files(tmp_path, [tmp_path / "bad.jpg"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gallery_of_a_source_has_its_names_and_labels() -> None:
    images = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8)
    source = ArraySource(
        images, [f"image {i}" for i in range(20)], [i % 2 for i in range(20)], ["even", "odd"]
    )
    gallery = Gallery.of_source(source, toy_recipe(), most=9)
    assert len(gallery.batch) == 9
    for i, name in enumerate(gallery.names):
        index = int(name.split()[1])
        assert gallery.labels[i] == ("odd" if index % 2 else "even")
        assert torch.equal(to_uint8(gallery.batch.images[i]), images[index])
    again = Gallery.of_source(source, toy_recipe(), most=9)
    assert again.names == gallery.names
    with pytest.raises(LaminaError, match="as many names"):
        Gallery(gallery.batch, ["one"])


def test_the_index_is_plain_json_whatever_the_names(tmp_path: Path) -> None:
    names = ["\udcff.jpg", "\u202egpj", "a\nb", '"<'] * 2
    write_pictures(toy_method(), toy_gallery(names, names), tmp_path, 1)
    index = json.loads((tmp_path / "index.json").read_bytes().decode("ascii"))
    assert [row["name"] for row in index["restored"]] == names[:3]
