"""The index of many images: one mapped file, valid for one state of the archives, small and opened at once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from lamina.core.errors import LaminaError
from lamina.data.archives import open as archives
from lamina.data.archives import whole
from lamina.data.archives.members import Members, Place
from lamina.data.array_files import read_arrays, write_arrays
from lamina.data.digest import names_sha256
from lamina.data.open import held_out, open_source
from lamina.data.sources import Source


def test_arrays_in_a_file(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(5, dtype=np.int64),
        "none": np.empty((0, 3), np.int32),
        "text": np.frombuffer("é".encode(), np.uint8),
        "b": np.arange(12, dtype=np.int32).reshape(4, 3)[:, :2],
    }
    file = tmp_path / "folder" / "x.arrays"
    write_arrays(file, arrays, {"notes": ["\udcff"]})
    found, about = read_arrays(file) or ({}, None)
    assert about == {"notes": ["\udcff"]}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        values = found[name].values
        assert (values.dtype, values.shape) == (array.dtype, array.shape)
        assert np.array_equal(values, array)
        assert not values.flags.writeable or not values.size


@pytest.mark.parametrize("change", ["a bit at any place", "cut off", "longer", "empty", "absent", "a folder"])
def test_a_damaged_file_is_as_none(change: str, tmp_path: Path) -> None:
    file = tmp_path / "x.arrays"
    write_arrays(file, {"a": np.arange(500)}, "about")
    content = file.read_bytes()
    if change == "a bit at any place":
        for place in (0, 7, 8, 30, len(content) // 2, len(content) - 1):
            damaged = bytearray(content)
            damaged[place] ^= 4
            file.write_bytes(damaged)
            assert read_arrays(file) is None
        return
    file.unlink()
    if change == "a folder":
        file.mkdir()
    elif change != "absent":
        file.write_bytes({"cut off": content[:-1], "longer": content + b"\0", "empty": b""}[change])
    assert read_arrays(file) is None


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten archives, whose members are made up, and the index of three images is worth its file."""
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(whole, "_WORTH_IMAGES", 3)
    monkeypatch.setattr(archives, "members_of", lambda path, *more: made_up(path, 4))
    folder = tmp_path / "shards"
    folder.mkdir()
    for part in ("train", "val"):
        for i in range(5):
            (folder / f"{part}-{i}.tar").write_bytes(b"")
    return folder


def made_up(path: str, n: int) -> Members:
    names = [f"{('cat', 'dög')[i % 2]}/{i:07d}.jpg" for i in range(n)]
    found = Members(names, [Place(512 * (i + 1), 100 + i) for i in range(n)], [""] * n)
    found.passed_over.endings[".txt"] += 1
    return found


def known(source: Source) -> list[object]:
    names = [source.name(i) for i in range(len(source))]
    spans = source.spans.tolist()  # type: ignore[attr-defined]
    return [names, list(source.labels or ()), source.class_names, source.notes, source.no_labels, spans]


@pytest.mark.parametrize("split", [None, "val", "all"])
def test_what_is_kept_is_what_was_put_together(split, shards, monkeypatch) -> None:
    first = open_source(str(shards), split)
    monkeypatch.setattr(archives, "members_of", None)  # would fail
    second = open_source(str(shards), split)
    assert len(second) == {None: 20, "val": 20, "all": 40}[split]
    assert known(second) == known(first)
    assert second.identity() == first.identity()
    if split is None:
        assert held_out(str(shards)) == "val"
        assert known(open_source(str(shards), "train")) == known(first)


def test_another_state_of_one_archive_is_put_together_anew(shards, tmp_path, monkeypatch) -> None:
    open_source(str(shards))
    kept = list((tmp_path / "cache").rglob("*.arrays"))
    assert len(kept) == 1
    monkeypatch.setattr(archives, "members_of", lambda path, *more: made_up(path, 6))
    assert len(open_source(str(shards))) == 20
    os.utime(shards / "val-4.tar", ns=(1, 1))
    assert len(open_source(str(shards))) == 30
    now = list((tmp_path / "cache").rglob("*.arrays"))
    assert len(now) == 1
    assert now != kept
    (shards / "val-4.tar").unlink()
    assert len(open_source(str(shards), "val")) == 24
    monkeypatch.setattr(archives, "members_of", lambda path, *more: made_up(path, 8))
    assert len(open_source(str(shards), "val")) == 24
    monkeypatch.setattr(whole, "version", lambda name: "another version of lamina")
    assert len(open_source(str(shards), "val")) == 32


def test_few_images_leave_no_file_and_a_cache_that_cannot_be_written_is_said(shards, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    source = open_source(str(shards))
    assert len(source) == 20
    assert "cannot be kept in" in source.notes[-1]
    assert "LAMINA_CACHE" in source.notes[-1]
    (tmp_path / "cache").unlink()
    monkeypatch.setattr(whole, "_WORTH_IMAGES", 21)
    assert len(open_source(str(shards))) == 20
    assert not (tmp_path / "cache").exists()
    with pytest.raises(LaminaError, match="no file matches"):
        open_source(str(shards / "x*.tar"))


def test_of_the_processes_of_a_run_one_makes_the_index(shards, monkeypatch) -> None:
    """The lock is had only after another process had it; what that one made is taken."""
    by_another = open_source(str(shards))
    next((shards.parent / "cache").rglob("*.arrays")).rename(shards / "made by another")
    held: list[Path] = []

    @contextmanager
    def in_turn(file: Path, *_: object) -> Iterator[None]:
        held.append(file)
        (shards / "made by another").rename(file.with_suffix(".arrays"))
        yield

    monkeypatch.setattr(archives, "_WORTH_BYTES", 0)
    monkeypatch.setattr(archives, "members_of", None)  # would fail
    monkeypatch.setattr(whole, "in_turn", in_turn)
    assert known(open_source(str(shards))) == known(by_another)
    assert len(held) == 1
    open_source(str(shards))
    assert len(held) == 1


def private_bytes() -> int:
    """Memory that this process has for itself."""
    fields = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return 1024 * sum(int(fields[f"Private_{kind}"].split()[0]) for kind in ("Clean", "Dirty"))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is counted as Linux does")
def test_two_hundred_thousand_images_are_opened_at_once_and_take_no_memory(shards, monkeypatch):
    """The goal, 2 s and 200 MB for ten million, is 0.04 s and 20 bytes an image; a machine that is busy has
    fifty times as long for it."""
    for shard in shards.glob("val-*"):
        shard.unlink()
    monkeypatch.setattr(archives, "members_of", lambda path, *more: made_up(path, 40_000))
    first = open_source(str(shards))
    digest = names_sha256(first.encoded_names(range(len(first))))
    monkeypatch.setattr(archives, "members_of", None)
    open_source(str(shards), "train")
    before, started = private_bytes(), time.process_time()
    source = open_source(str(shards))
    assert time.process_time() - started < 2
    assert len(source) == 200_000
    assert private_bytes() - before < 20 * 200_000
    assert names_sha256(source.encoded_names(range(len(source)))) == digest
    assert time.process_time() - started < 4
