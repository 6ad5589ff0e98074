"""What every `Source` gives: files within an archive are read, measured and compared as files in a folder are."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lamina.data.check import check
from lamina.data.decode.decode import Decoded
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.open import open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import ArraySource, EncodedSource, FileSource, Source, Subset


class Zipped(EncodedSource):
    """Images in a zip archive; all that such a source needs is `open`."""

    def __init__(self, archive: Path, names: Sequence[str]) -> None:
        super().__init__(names)
        self.archive = archive

    def open(self, i: int) -> io.BytesIO:
        with zipfile.ZipFile(self.archive) as opened:
            return io.BytesIO(opened.read(self.name(i)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileSource, Zipped]:
    """The same files in a folder and in an archive: one of each format, a copy, and what is no image."""
    folder = tmp_path_factory.mktemp("images")
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    picture, turned = Image.fromarray(pixels), Image.Exif()
    turned[0x0112] = 6
    picture.save(folder / "a.png")
    picture.save(folder / "b.jpg", exif=turned)
    picture.save(folder / "c.tif", compression="tiff_lzw")
    picture.save(folder / "d.webp")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(folder / "e.tif")
    np.save(folder / "f.npy", pixels)
    (folder / "g.png").write_bytes((folder / "a.png").read_bytes())
    (folder / "h.png").write_bytes(b"")
    (folder / "i.jpg").write_bytes((folder / "b.jpg").read_bytes()[:200])
    (folder / "j.png").write_bytes(b"no image at all")
    names = sorted(path.name for path in folder.iterdir())
    archive = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        for name in names:
            opened.write(folder / name, name)
    return FileSource(str(folder), names), Zipped(archive, names)


def outcome(source: Source, i: int, how: Decoding) -> Decoded | tuple[Reason, str]:
    """The image, or why there is none."""
    try:
        return source.inspect(i, how)
    except Unreadable as error:
        return error.reason, error.detail


@pytest.mark.parametrize("how", [Decoding(), Decoding(1), Decoding(3, exif_orientation=False)])
def test_an_archive_gives_what_a_folder_gives(both: tuple[FileSource, Zipped], how: Decoding) -> None:
    folder, archive = both
    bad = {}
    for i in range(len(folder)):
        expected, found = outcome(folder, i, how), outcome(archive, i, how)
        if not isinstance(expected, Decoded) or not isinstance(found, Decoded):
            assert found == expected
            bad[folder.name(i)] = None if isinstance(expected, Decoded) else expected[0]
            continue
        assert torch.equal(found.image, expected.image)
        assert (found.format, found.orientation) == (expected.format, expected.orientation)
        assert archive.size(i, how) == folder.size(i, how) == tuple(expected.image.shape[1:])
    assert bad == {"h.png": Reason.EMPTY, "i.jpg": Reason.BROKEN, "j.png": Reason.UNKNOWN_FORMAT}


def test_the_check_counts_the_bytes_of_files_wherever_they_lie(both: tuple[FileSource, Zipped]) -> None:
    folder, archive = both
    options = DataOptions(workers=0)
    good = [name for name in map(folder.name, range(len(folder))) if name[0] < "h"]
    n_bytes = sum(Path(folder.root, name).stat().st_size for name in good)
    order = [len(folder) - 1 - i for i in range(len(folder))]
    sources: list[Source] = [folder, archive, Subset(folder, order), Subset(archive, order)]
    for source in sources:
        found = check(source, options, duplicates=True)
        assert (found.n_files, found.n_bytes) == (len(folder), n_bytes)
        assert [sorted(group) for group in found.duplicates] == [["a.png", "g.png"]]


def test_a_part_of_a_folder_is_a_view_of_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(5):
            Image.new("L", (3 + k, 2), k).save(tmp_path / name / f"{k}.png")
    whole, val = open_source(tmp_path), open_source(tmp_path, "val")
    where = {whole.name(i): i for i in range(len(whole))}
    for i in range(len(val)):
        k = where[val.name(i)]
        stream, expected = val.open(i), whole.open(k)
        assert stream is not None
        assert expected is not None
        with stream, expected:
            assert stream.read() == expected.read()
        assert val.size(i) == whole.size(k)
        assert torch.equal(val.read(i), whole.read(k))
    assert val.content(range(len(val))) == whole.content([where[val.name(i)] for i in range(len(val))])
    sent = pickle.loads(pickle.dumps(val))  # noqa: S301  # our own bytes
    assert [sent.name(i) for i in range(len(sent))] == [val.name(i) for i in range(len(val))]


def test_images_in_memory_have_a_size_and_no_file() -> None:
    source = ArraySource(torch.zeros(2, 1, 4, 6, dtype=torch.uint8), ["a", "b"])
    assert (source.size(1), source.open(1)) == ((4, 6), None)
