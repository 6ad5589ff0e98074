"""`lamina data pack`: the same images as before, shrunk or as they were; and packs that somebody damaged."""

from __future__ import annotations

import errno
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from lamina.cli.entry import main
from lamina.core.errors import LaminaError
from lamina.core.files import TEMPORARY
from lamina.core.records import read_json, write_json
from lamina.core.tensor_files import load_tensors, save_tensors
from lamina.data.check import check
from lamina.data.decode.jpeg import usable
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.pack import blob, compare, views
from lamina.data.pack.encode import shrunk
from lamina.data.pack.files import ABOUT, BLOB, INDEX
from lamina.data.pack.write import pack
from lamina.data.sources import ArraySource, Source, Subset
from lamina.interop.inspect import inspect

SPLITS = (None, "train", "val", "all")
FORMATS = ("jpeg", "raw")
TURNED = 6
"""EXIF: to be turned to the right by a quarter."""


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def save(file: Path, pixels: np.ndarray, **options: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **options)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = TURNED
    return exif


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts of two classes; photographs, grey ones, one with alpha, one to be turned, one of 16 bits, one
    of five channels, and two that cannot be read."""
    root = tmp_path_factory.mktemp("photos")
    for k, part in enumerate(("train", "val")):
        for j, name in enumerate(("cats", "dogs")):
            for i in range(3):
                save(root / part / name / f"{i}.jpg", noise(100 * k + 10 * j + i, 48, 64, 3))
    cats = root / "train" / "cats"
    save(cats / "alpha.png", noise(1, 48, 64, 4))
    save(cats / "grey.jpg", noise(2, 48, 64))
    save(cats / "turned.jpg", noise(3, 48, 64, 3), exif=turned())
    save(cats / "deep.png", noise(4, 48, 64).astype(np.uint16) * 257)
    save(cats / "small.webp", noise(5, 20, 30, 3), lossless=True)
    np.save(cats / "satellite.npy", noise(6, 48, 64, 5))
    return root


@pytest.fixture(scope="module", params=FORMATS)
def whole(request, folder, tmp_path_factory) -> str:
    """A pack whose side no image reaches, so that nothing is changed."""
    out = tmp_path_factory.mktemp("packs") / "packed"
    pack(str(folder), out, side=64, format=request.param, workers=0)
    return str(out)


def names(source: Source) -> list[str]:
    return [source.name(i) for i in range(len(source))]


# The same images as before


@pytest.mark.parametrize("split", SPLITS)
def test_parts_names_labels_and_pixels_are_those_of_the_folder(split, whole, folder):
    own, before = open_source(whole, split), open_source(str(folder), split)
    assert names(own) == names(before)
    assert (own.labels, own.class_names, own.no_labels) == (before.labels, before.class_names, "")
    assert held_out(whole) == held_out(str(folder)) == "val"
    for i in range(len(own)):
        assert torch.equal(own.read(i), before.read(i))
        assert own.size(i) == before.size(i)


@pytest.mark.parametrize("how", [Decoding(), Decoding(1), Decoding(3), Decoding(exif_orientation=False)])
def test_every_way_of_reading_has_its_meaning(how, whole, folder):
    def outcome(source: Source, i: int) -> object:
        try:
            return source.read(i, how)
        except Unreadable as error:
            return error.reason

    own, before = open_source(whole, "all"), open_source(str(folder), "all")
    for i in range(len(own)):
        found, expected = outcome(own, i), outcome(before, i)
        if isinstance(expected, torch.Tensor):
            assert torch.equal(found, expected), own.name(i)
            assert own.size(i, how) == tuple(expected.shape[1:])
        else:
            assert found == expected == Reason.CHANNELS


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_from_any_step_on(workers, whole, folder):
    def batches(data: str, first: int) -> list[tuple[torch.Tensor, ...]]:
        options = DataOptions(workers=workers, bad_files_min=100)
        loader = TrainLoader(open_source(data), options, 3, 4, image_size=(16, 16), in_chans=3)
        return [(batch.images, batch.keys, batch.labels) for batch in loader.batches(first, 4)]

    own, before, later = batches(whole, 0), batches(str(folder), 0), batches(whole, 2)
    assert len(own) == 4
    for a, b in zip([*own, *own[2:]], [*before, *later], strict=True):
        assert all(map(torch.equal, a, b))


def test_without_parts_the_same_images_are_held_out(folder, tmp_path):
    data = str(folder / "train")
    pack(data, tmp_path / "p", side=16, workers=0)
    assert held_out(str(tmp_path / "p")) == "all"
    for split in SPLITS:
        own, before = (open_source(each, split, 0.3, 5) for each in (str(tmp_path / "p"), data))
        assert names(own) == names(before)
        assert own.labels == before.labels
    assert any("no held-out part" in note for note in open_source(str(tmp_path / "p")).notes)


def test_several_labels_of_an_image_are_kept(tmp_path):
    for name in "abc":
        save(tmp_path / f"{name}.png", noise(ord(name), 20, 20, 3))
    table = tmp_path / "t.csv"
    table.write_text("path,label,part\na.png,cat;dog,train\nb.png,dog,train\nc.png,cat,val\n")
    data = f"{table}?separator=;"
    pack(data, tmp_path / "p", side=16, workers=0)
    for split in SPLITS:
        own, before = open_source(str(tmp_path / "p"), split), open_source(data, split)
        assert before.multi_labels is not None
        assert own.multi_labels is not None
        assert own.multi_labels.tolist() == before.multi_labels.tolist()
        assert (own.class_names, own.labels, names(own)) == (before.class_names, None, names(before))


LABELLED = {
    "a row without a label": ("path,label\na.png,cat\nb.png,dog\nc.png,\n", ["the pack"]),
    "the same in a part": (
        "path,label,part\na.png,cat,train\nb.png,dog,train\nc.png,,val\n",
        ["held-out part"],
    ),
    "beside rows that have one": (
        "path,label,part\na.png,cat,train\nb.png,dog,train\nc.png,,train\na2.png,cat,val\nb2.png,dog,val\n",
        [],
    ),
    "no labels": ("path\na.png\nb.png\n", ["the pack"]),
    "all rows with a label": ("path,label\na.png,cat\nb.png,dog\n", []),
}


@pytest.mark.parametrize("case", LABELLED)
def test_labels_that_a_pack_does_not_have_are_said(case, tmp_path):
    text, where = LABELLED[case]
    (tmp_path / "t.csv").write_text(text)
    for line in text.splitlines()[1:]:
        save(tmp_path / line.split(",")[0], noise(len(line), 20, 20, 3))
    told = [
        line
        for line in pack(str(tmp_path / "t.csv"), tmp_path / "p", workers=0).lines()
        if "no labels" in line
    ]
    assert len(told) == len(where)
    for line, what in zip(told, where, strict=True):
        assert f"{what} has no labels" in line
        assert open_source(str(tmp_path / "p"), "val" if "held-out" in what else "all").no_labels in line
    for split in ("train", "val") if "part" in text.splitlines()[0] else ("all",):
        source = open_source(str(tmp_path / "p"), split)
        assert (source.labels is None) == any(("held-out" in what) == (split == "val") for what in where)


def test_what_has_a_held_out_part_alone_has_no_training_part(folder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "test").symlink_to(folder / "val")
    pack(str(tmp_path / "photos"), tmp_path / "p", workers=0)
    assert len(open_source(str(tmp_path / "p"), "val")) == len(open_source(str(tmp_path / "p"), "all")) == 6
    with pytest.raises(LaminaError, match="no images of a training part"):
        open_source(str(tmp_path / "p"))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_that_are_no_files_keep_their_values(form, dtype, tmp_path):
    pixels = torch.from_numpy(noise(0, 4, 3, 20, 24))
    images = pixels if dtype == torch.uint8 else pixels / 255
    same = ArraySource(images, ["x"] * 4, [1, 0, 1, 1], ("a", "b"))
    pack(same, tmp_path / "p", side=20, format=form, workers=0)
    own = open_source(str(tmp_path / "p"))
    assert (names(own), own.labels) == (["x"] * 4, [1, 0, 1, 1])
    assert torch.equal(torch.stack([own.read(i) for i in range(4)]), images)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_is_reduced_as_in_the_folder(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i, size in enumerate(((60, 82), (64, 80))):
        pixels = np.asarray(Image.fromarray(noise(i, 6, 8, 3)).resize(size[::-1]))
        save(tmp_path / "photos" / f"{i}.jpg", pixels, exif=exif)
    pack(str(tmp_path / "photos"), tmp_path / "p", side=64, workers=0)
    own, before = open_source(str(tmp_path / "p")), open_source(str(tmp_path / "photos"))
    seen = []
    how = Decoding(reduce=lambda height, width: seen.append((height, width)) or 4)
    for i in range(2):
        a, b = own.inspect(i, how), before.inspect(i, how)
        assert torch.equal(a.image, b.image)
        assert (a.reduced, a.orientation, a.format, a.mode) == (b.reduced, b.orientation, b.format, b.mode)
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]


@pytest.mark.skipif(not usable(), reason="without simplejpeg all JPEGs are opened by Pillow")
def test_the_header_of_a_jpeg_is_not_looked_at(whole, folder, monkeypatch):
    own, before = open_source(whole, "val"), open_source(str(folder), "val")
    expected = [before.read(i) for i in range(len(before))]
    monkeypatch.setattr(Image, "open", None)
    assert all(torch.equal(own.read(i), image) for i, image in enumerate(expected))


def test_a_jpeg_that_was_damaged_is_read_as_in_a_folder(tmp_path):
    save(tmp_path / "photos" / "a.jpg", noise(0, 40, 50, 3))
    pack(str(tmp_path / "photos"), tmp_path / "p", workers=0)
    content = (tmp_path / "p" / BLOB).read_bytes()
    for k in (0, 30, 300, len(content) - 200):
        damaged = content[:k] + bytes(100) + content[k + 100 :]
        (tmp_path / "p" / BLOB).write_bytes(damaged)
        (tmp_path / "photos" / "a.jpg").write_bytes(damaged)
        outcomes = []
        for root in ("p", "photos"):
            source = open_source(str(tmp_path / root))
            try:
                outcomes.append(source.read(0).tolist())
            except Unreadable as error:
                outcomes.append(error.reason)
        assert outcomes[0] == outcomes[1]


def test_a_pack_can_be_packed(whole, folder, tmp_path):
    pack(whole, tmp_path / "p", side=64, format="raw", workers=0)
    own, before = open_source(str(tmp_path / "p"), "val"), open_source(str(folder), "val")
    assert names(own) == names(before)
    assert all(torch.equal(own.read(i), before.read(i)) for i in range(len(own)))


def test_inspect_says_that_it_is_a_pack_with_its_counts(whole, folder):
    found = inspect(whole)
    rows = dict(found.rows())
    assert found.what == "a pack of images of lamina"
    assert rows["images"] == str(len(open_source(str(folder), "all")))
    assert rows["training"] == f"{len(open_source(str(folder), 'train'))} images"
    assert rows["held out"] == f"{len(open_source(str(folder), 'val'))} images"
    assert f"{(Path(whole) / BLOB).stat().st_size:,} bytes" in rows["stored as"]


def test_inspect_refuses_a_damaged_pack_in_one_line(folder, tmp_path):
    pack(str(folder), tmp_path / "p", side=16, workers=0)
    (tmp_path / "p" / INDEX).unlink()
    with pytest.raises(LaminaError, match="it is missing"):
        inspect(tmp_path / "p")


def test_the_check_reads_every_image(whole):
    found = check(open_source(whole, "all"), DataOptions(workers=0))
    assert (found.n_files, len(found.bad), found.turned) == (18, 0, 1)


# What is shrunk


def ramp(height: int, width: int) -> np.ndarray:
    """Grey that rises by one level in two pixels to the right, and by one in four downwards."""
    y, x = np.mgrid[:height, :width]
    return (x / 2 + y / 4).round().astype(np.uint8)


@pytest.mark.parametrize("form", FORMATS)
def test_the_short_side_is_the_side_and_a_ramp_stays_a_ramp(form, tmp_path):
    save(tmp_path / "photos" / "a.png", ramp(160, 240))
    save(tmp_path / "photos" / "b.png", ramp(240, 160).repeat(3).reshape(240, 160, 3))
    result = pack(str(tmp_path / "photos"), tmp_path / "p", side=80, format=form, quality=100, workers=0)
    own = open_source(str(tmp_path / "p"))
    assert [tuple(own.read(i).shape) for i in (0, 1)] == [(1, 80, 120), (3, 120, 80)]
    # Pixel (y, x) of half the size lies in the middle of 2 x 2 pixels.
    y, x = np.mgrid[:80, :120]
    expected = (2 * x + 0.5) / 2 + (2 * y + 0.5) / 4
    inside = (slice(4, -4), slice(4, -4))
    assert np.abs(own.read(0)[0].numpy() - expected)[inside].max() <= 2  # rounded twice, and once by JPEG
    assert result.ways == {"shrunk": 2}
    assert result.comparison is not None
    assert result.comparison.psnr_db[0] > 40


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_small_or_deep_is_never_changed(form, folder, tmp_path):
    result = pack(str(folder), tmp_path / "p", side=32, format=form, workers=0)
    own, before = open_source(str(tmp_path / "p"), "all"), open_source(str(folder), "all")
    shapes = {own.name(i).rpartition("/")[2]: tuple(own.read(i).shape) for i in range(len(own))}
    for name in ("small.webp", "deep.png"):
        i = next(i for i in range(len(own)) if own.name(i).endswith(name))
        assert torch.equal(own.read(i), before.read(i))
    rest = {name: shape for name, shape in shapes.items() if name not in ("small.webp", "deep.png")}
    channels = {"alpha.png": 4, "grey.jpg": 1, "satellite.npy": 5}
    assert rest == {
        name: (channels.get(name, 3), *((43, 32) if name == "turned.jpg" else (32, 43))) for name in rest
    }
    assert sum(result.ways.values()) == 18
    assert result.ways["shrunk"] == 16


def test_the_speed_is_the_time_of_the_originals_over_that_of_the_pack(folder, tmp_path, monkeypatch):
    clock = iter((0.0, 8.0, 9.0, 11.0))
    monkeypatch.setattr(compare, "time", SimpleNamespace(process_time=lambda: next(clock)))
    result = pack(str(folder / "val"), tmp_path / "p", side=32, workers=0)
    assert result.comparison is not None
    assert result.comparison.speed == 8 / 2
    assert "made 4.0 times as fast" in " ".join(result.lines())


def test_a_file_that_is_small_stays_the_file(tmp_path):
    save(tmp_path / "photos" / "a.jpg", noise(0, 30, 40, 3), exif=turned())
    pack(str(tmp_path / "photos"), tmp_path / "p", side=30, workers=0)
    assert (tmp_path / "p" / BLOB).read_bytes() == (tmp_path / "photos" / "a.jpg").read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_stays_a_tag(orientation, form, name, tmp_path):
    """Of a file with an alpha channel too, which is packed as PNG."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    corner = np.zeros((64, 96, 3 if name == "a.jpg" else 4), np.uint8)
    corner[:32, :48] = 255
    corner[..., 3:] = 255
    save(tmp_path / "photos" / name, corner, exif=exif, quality=95)
    pack(str(tmp_path / "photos"), tmp_path / "p", side=32, format=form, workers=0)
    own, before = open_source(str(tmp_path / "p")), open_source(str(tmp_path / "photos"))
    for how in (Decoding(), Decoding(exif_orientation=False)):
        found, expected = own.read(0, how), before.read(0, how)[:, ::2, ::2]
        assert found.shape == expected.shape
        assert ((found > 127) != (expected > 127)).float().mean() < 0.05
    if (file := own.open(0)) is not None:
        with file, Image.open(file) as packed:
            assert packed.getexif().get(0x0112, 1) == orientation


@pytest.mark.parametrize("form", FORMATS)
def test_what_the_path_says_of_values_and_pages_has_its_meaning(form, tmp_path):
    root = tmp_path / "photos"
    save(root / "a.png", noise(0, 8, 9, 3))
    np.save(root / "b.npy", noise(1, 8, 9).astype(np.int16) - 100)
    frames = [Image.fromarray(noise(k, 20, 21)) for k in (2, 3)]
    frames[0].save(root / "c.tif", save_all=True, append_images=frames[1:])
    result = pack(str(root), tmp_path / "p", side=8, format=form, workers=0)
    assert sorted(result.ways.values()) == [1, 1, 1]
    for query in ("?scale=-50:50", "?scale=0:255&nodata=7", "?pages=channels"):
        own, before = open_source(f"{tmp_path / 'p'}{query}"), open_source(f"{root}{query}")
        assert len(own) == len(before) == 3
        for i in range(3):
            if query == "?pages=channels" and i == 1:  # signed integers need a range
                continue
            assert torch.equal(own.read(i), before.read(i))
    with pytest.raises(LaminaError, match="pack the images without it"):
        pack(f"{root}?scale=0:9", tmp_path / "q", workers=0)
    assert not (tmp_path / "q").exists()


def test_colours_that_nobody_sees_do_not_bleed(tmp_path):
    """Left half: opaque green. Right half: red that is wholly transparent."""
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :32] = (0, 255, 0, 255)
    pixels[:, 32:] = (255, 0, 0, 0)
    small = shrunk(pixels, alpha=True, side=21).astype(int)
    seen = small[..., 3] > 8
    assert small[..., 0][seen].max() < 16
    assert shrunk(pixels, alpha=False, side=21)[..., 0].max() == 255


# What cannot be read, and what cannot be written


def test_what_cannot_be_read_is_left_out_and_counted(folder, tmp_path, capsys):
    root = tmp_path / "photos"
    save(root / "a.png", noise(0, 40, 40, 3))
    save(root / "d.png", noise(1, 40, 40, 3))
    (root / "b.png").write_bytes(b"")
    (root / "c.jpg").write_bytes(b"no image")
    (root / "x.heic").write_bytes(b"x")
    assert main(["data", "pack", str(root), "--out", str(tmp_path / "p"), "--side", "16"]) == 0
    told = capsys.readouterr().out
    assert "2 images that cannot be read: 1 empty file, 1 not a known image format" in told
    assert "2 images, " in told
    assert "images: 2 shrunk" in told
    assert "1 .heic" in told
    source = open_source(str(tmp_path / "p"))
    assert names(source) == ["a.png", "d.png"]
    assert "left out when it was packed: 1 empty file" in " ".join(source.notes)


@pytest.mark.parametrize("query", ["", "?separator=;"])
def test_labels_stay_with_their_images_where_one_is_left_out(query, tmp_path):
    (tmp_path / "t.csv").write_text("path,label\na.png,cat\nb.png,dog\nc.png,cat\nd.png,dog\n")
    for name in "bcd":
        save(tmp_path / f"{name}.png", noise(ord(name), 20, 20, 3))
    (tmp_path / "a.png").write_bytes(b"")
    pack(f"{tmp_path / 't.csv'}{query}", tmp_path / "p", workers=0)
    own = open_source(str(tmp_path / "p"))
    labels = own.labels if own.multi_labels is None else own.multi_labels.argmax(1).tolist()
    assert dict(zip(names(own), labels, strict=True)) == {"b.png": 1, "c.png": 0, "d.png": 1}


def test_where_nothing_can_be_read_nothing_is_written(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "b.png").write_bytes(b"")
    with pytest.raises(LaminaError, match=r"none of the 1 images can be read, e.g. b.png: empty file"):
        pack(str(tmp_path / "photos"), tmp_path / "new" / "p", workers=0)
    assert os.listdir(tmp_path) == ["photos"]


@pytest.mark.parametrize("form", FORMATS)
def test_workers_change_nothing(form, folder, tmp_path):
    for workers in (0, 2):
        pack(str(folder), tmp_path / str(workers), side=32, format=form, workers=workers)
    for name in (ABOUT, INDEX, BLOB):
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


class Full(io.BytesIO):
    """A file on a full disk."""

    def write(self, content: object) -> int:  # type: ignore[override]
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(blob, "open", lambda *_: Full(), raising=False)
    assert main(["data", "pack", str(folder), "--out", str(tmp_path / "p"), "--workers", "0"]) == 2
    assert "images.bin: No space left on device" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_an_interrupted_pack_leaves_nothing_and_says_so(folder, tmp_path):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as error:
        pack(str(folder), tmp_path / "p", workers=0, progress=stop)
    assert error.value.__notes__ == ["nothing of it is kept: a pack appears when it is complete"]
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_is_removed(folder, tmp_path):
    (tmp_path / f"{TEMPORARY}p").mkdir()
    (tmp_path / f"{TEMPORARY}p" / "rest").write_bytes(b"x")
    pack(str(folder), tmp_path / "p", workers=0)
    assert os.listdir(tmp_path) == ["p"]
    assert sorted(os.listdir(tmp_path / "p")) == sorted((ABOUT, BLOB, INDEX))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_may_read_it(folder, tmp_path):
    pack(str(folder), tmp_path / "p", workers=0)
    (tmp_path / "x").touch()
    expected = stat.S_IMODE((tmp_path / "x").stat().st_mode)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "p").iterdir()} == {expected}


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ("pack", "already holds a pack; choose another --out"),
        ("other", "is not a pack"),
        ("file", "is not a pack"),
    ],
)
def test_what_is_there_is_never_replaced(there, words, whole, folder, tmp_path):
    out = tmp_path / "p"
    if there == "file":
        out.write_bytes(b"x")
    else:
        out.mkdir()
        (out / (ABOUT if there == "pack" else "notes.txt")).write_bytes(b"x")
    with pytest.raises(LaminaError, match=words):
        pack(str(folder), out, workers=0)
    assert os.listdir(tmp_path) == ["p"]


def test_an_option_without_effect_is_refused(folder, tmp_path, capsys):
    args = ["data", "pack", str(folder), "--out", str(tmp_path / "p"), "--format", "raw", "--quality", "80"]
    assert main(args) == 2
    assert "--quality" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_a_pack_among_photographs_is_no_data(tmp_path):
    save(tmp_path / "photos" / "a.png", noise(0, 40, 40, 3))
    pack(str(tmp_path / "photos"), tmp_path / "photos" / "packed", workers=0)
    source = open_source(str(tmp_path / "photos"))
    assert names(source) == ["a.png"]
    assert source.notes == ("1 folder that lamina wrote passed over: packed",)


# Packs that somebody damaged


def changed_index(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """Another index, with a digest that is right again."""

    def write(folder: Path) -> None:
        tensors, metadata = load_tensors(folder / INDEX)
        change(tensors)
        metadata.pop("format", None)
        save_tensors(tensors, folder / INDEX, metadata)

    return write


def changed_about(**fields: object) -> Callable[[Path], None]:
    """Other fields of pack.json, with a digest that is right again."""
    return lambda folder: write_json(folder / ABOUT, {**read_json(folder / ABOUT), **fields})


def put(name: str, at: int, value: int) -> Callable[[Path], None]:
    return changed_index(lambda tensors: tensors[name].view(-1).__setitem__(at, value))


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))  # type: ignore[return-value]


DAMAGE: dict[str, Callable[[Path], object]] = {
    "blob cut": edited(BLOB, lambda content: content[:-1]),
    "blob longer": edited(BLOB, lambda content: content + b"x"),
    "blob empty": edited(BLOB, lambda content: b""),
    "blob missing": lambda folder: (folder / BLOB).unlink(),
    "blob a folder": lambda folder: ((folder / BLOB).unlink(), (folder / BLOB).mkdir()),
    "index missing": lambda folder: (folder / INDEX).unlink(),
    "index cut": edited(INDEX, lambda content: content[:-5]),
    "index empty": edited(INDEX, lambda content: b""),
    "bit of the index": edited(INDEX, lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]),
    "json missing": lambda folder: (folder / ABOUT).unlink(),
    "json empty": edited(ABOUT, lambda content: b""),
    "json cut": edited(ABOUT, lambda content: content[:200]),
    "json edited": edited(ABOUT, lambda content: content.replace(b'"cats"', b'"rats"')),
    "json of something else": edited(ABOUT, lambda content: b'{"lamina-pack": [[[[]]]]}'),
    "json deep": edited(ABOUT, lambda content: b"[" * 100_000),
    "later version": changed_about(version=2),
    "views no object": changed_about(views=[1]),
    "view no object": changed_about(views={"all": 1}),
    "view without an index": changed_about(
        views={"all": {"classes": [], "notes": [], "no_labels": ""}, "x": {"classes": [], "notes": []}}
    ),
    "no view": changed_about(views={}),
    "fewer classes": lambda folder: changed_about(
        views={k: {**v, "classes": ["cats"]} for k, v in read_json(folder / ABOUT)["views"].items()}
    )(folder),
    "more images": changed_about(images=10**18),
    "number as text": changed_about(images="18"),
    "blob of text bytes": changed_about(blob_bytes="many"),
    "another blob": changed_about(blob_sha256="0" * 64),
    "first byte below 0": put("spans", 0, -1),
    "first byte beyond": put("spans", 0, 1 << 40),
    "size beyond": put("spans", 1, 1 << 62),
    "size below 0": put("spans", 3, -5),
    "height of a giant": put("layouts", 1, 1 << 30),
    "no width": put("layouts", 2, 0),
    "kind": put("layouts", 0, 7),
    "orientation": put("layouts", 5, 9),
    "image of a split": put("train.indices", 0, 1000),
    "several labels of other images": changed_index(
        lambda tensors: tensors.update({"all.multi_labels": torch.ones(3, 2, dtype=torch.bool)})
    ),
    "label below 0": put("all.labels", 0, -1),
    "name longer than all": put("name_bytes", 0, 1 << 20),
    "name below 0": put("name_bytes", 0, -1),
    "name without an end": put("names", len("train/cats/0.jpg"), 1),
    "array missing": changed_index(lambda tensors: tensors.pop("layouts")),  # type: ignore[arg-type, return-value]
    "array of another shape": changed_index(
        lambda tensors: tensors.update(spans=tensors["spans"].T.contiguous())
    ),
}


@pytest.fixture(scope="module")
def pristine(folder, tmp_path_factory) -> dict[str, bytes]:
    """The files of a pack of pixels."""
    out = tmp_path_factory.mktemp("pristine") / "p"
    pack(str(folder), out, side=16, format="raw", workers=0)
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_pack_is_refused_in_one_line(name, pristine, tmp_path):
    out = tmp_path / "p"
    out.mkdir()
    for file, content in pristine.items():
        (out / file).write_bytes(content)
    assert len(open_source(str(out), "all")) == 18
    DAMAGE[name](out)
    with pytest.raises(LaminaError) as error:
        open_source(str(out), "all")
    assert "\n" not in str(error.value)
    assert "pack" in str(error.value)


@pytest.mark.parametrize("form", FORMATS)
def test_a_blob_that_becomes_shorter_under_a_run_gives_unreadable_images(form, folder, tmp_path):
    pack(str(folder), tmp_path / "p", side=32, format=form, workers=0)
    source = open_source(str(tmp_path / "p"), "all")
    os.truncate(tmp_path / "p" / BLOB, 1000)
    for reason in (Reason.BROKEN, Reason.MISSING):
        with pytest.raises(Unreadable) as error:
            source.read(len(source) - 1)
        assert error.value.reason == reason
        (tmp_path / "p" / BLOB).unlink(missing_ok=True)


def test_nothing_of_a_pack_is_unpickled(pristine, tmp_path):
    (tmp_path / INDEX).write_bytes(pristine[INDEX])
    assert set(load_file(tmp_path / INDEX)) > {"spans", "layouts", "names", "name_bytes"}
    assert json.loads(pristine[ABOUT])["format"] == "lamina-pack"


def test_an_error_of_one_part_is_no_pack_without_it(folder, tmp_path, monkeypatch):
    def fails(spec, split=None):
        if split == "val":
            raise LaminaError("the remote does not answer")
        return open_source(spec, split)

    monkeypatch.setattr(views, "open_source", fails)
    with pytest.raises(LaminaError, match="does not answer"):
        pack(str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_with_other_names_in_a_part_are_not_packed_twice(folder, tmp_path, monkeypatch):
    class Renamed(Subset):
        def name(self, i: int) -> str:
            return f"other/{super().name(i)}"

    def renaming(spec, split=None):
        found = open_source(spec, split)
        return Renamed(found, range(len(found))) if split == "val" else found

    monkeypatch.setattr(views, "open_source", renaming)
    with pytest.raises(LaminaError, match="packed twice"):
        pack(str(folder), tmp_path / "out")
