"""Zip files of images: the same images as in a folder, and files that somebody made to do harm."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from helpers.archives import check_taken, jpeg, two_parts, zipped
from lamina.core.errors import LaminaError
from lamina.data.check import check
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions, Decoding
from lamina.data.sources import images_digest

DEFLATED, STORED = zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED
LOCAL, CENTRAL, END = b"PK\3\4", b"PK\1\2", b"PK\5\6"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_parts(tmp_path_factory.mktemp("photos"))


# The same images as in a folder


@pytest.mark.parametrize("method", [STORED, DEFLATED])
@pytest.mark.parametrize("split", [None, "train", "val", "all"])
def test_a_zip_file_is_the_folder_that_it_was_made_of(split, method, folder, tmp_path):
    archive = zipped(tmp_path / "all.zip", folder, ["train", "val"], method)
    own, of_folder = open_source(str(archive), split), open_source(str(folder), split)
    assert [own.name(i) for i in range(len(own))] == [of_folder.name(i) for i in range(len(of_folder))]
    assert (own.labels, own.class_names) == (of_folder.labels, of_folder.class_names)
    assert images_digest(own) == images_digest(of_folder)
    assert all(torch.equal(own.read(i), of_folder.read(i)) for i in range(len(own)))
    assert [own.size(i) for i in range(len(own))] == [(24, 36)] * len(own)
    assert held_out(str(archive)) == "val"


@pytest.mark.parametrize("spec", ["", "/*.zip", "/{train,val}.zip"])
def test_several_have_parts_by_their_names(spec, folder, tmp_path):
    for part in ("train", "val"):
        zipped(tmp_path / f"{part}.zip", folder / part, ["cats", "dogs"], DEFLATED)
    for split in ("train", "val"):
        own, of_folder = open_source(f"{tmp_path}{spec}", split), open_source(str(folder), split)
        assert (own.labels, own.class_names) == (of_folder.labels, of_folder.class_names)
        assert own.content(range(len(own))) == of_folder.content(range(len(of_folder)))


def test_batches_are_those_of_the_folder_from_any_step_on(folder, tmp_path):
    archive = zipped(tmp_path / "all.zip", folder, ["train", "val"], DEFLATED)

    def batches(data: str, first: int, workers: int, rank: int = 0, world: int = 1) -> list[torch.Tensor]:
        options = DataOptions(workers=workers)
        loader = TrainLoader(open_source(data), options, 3, 4, rank, world, image_size=(16, 16))
        return [batch.images for batch in loader.batches(first, 4)]

    of_folder = batches(str(folder), 0, 0)
    assert all(map(torch.equal, batches(str(archive), 0, 2), of_folder))
    assert all(map(torch.equal, batches(str(archive), 2, 0), of_folder[2:]))
    ranks = [batches(str(archive), 0, 0, rank, 2) for rank in range(2)]
    of_ranks = [batches(str(folder), 0, 0, rank, 2) for rank in range(2)]
    assert all(
        torch.equal(a, b) for pair in zip(ranks, of_ranks, strict=True) for a, b in zip(*pair, strict=True)
    )


def test_the_check_reads_every_member(folder, tmp_path):
    archive = zipped(tmp_path / "all.zip", folder, ["train", "val"], DEFLATED)
    found = check(open_source(str(archive), "all"), DataOptions(workers=0))
    assert (found.ok, found.n_files, sum(found.classes.values())) == (True, 20, 20)
    assert found.n_bytes == sum(file.stat().st_size for file in folder.rglob("*.jpg"))


def test_files_beside_the_images_are_their_classes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", DEFLATED) as archive:
        for i, label in enumerate(("10", "9", "10")):
            archive.writestr(f"{i}.jpg", jpeg(i))
            archive.writestr(f"{i}.json", f'{{"label": {label}}}' if i else '{"cls": 10}')
    source = open_source(str(tmp_path / "a.zip"))
    assert (source.class_names, source.labels) == (("9", "10"), [1, 0, 1])


# What is in it


def made(*members: tuple[str, bytes], method: int = STORED) -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return into.getvalue()


def link() -> bytes:
    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as archive:
        archive.writestr("a.jpg", jpeg(1))
        member = zipfile.ZipInfo("b.jpg")
        member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return into.getvalue()


TAKEN = {
    "absolute name": (made(("/etc/a.jpg", jpeg(1))), ["etc/a.jpg"], ""),
    "name that climbs": (made(("../../a.jpg", jpeg(1))), ["../../a.jpg"], ""),
    "name with a new line": (made(("a\n\x1b[2Jb.jpg", jpeg(1))), ["a\n\x1b[2Jb.jpg"], ""),
    "name in another alphabet": (made(("사진.jpg", jpeg(1))), ["사진.jpg"], ""),
    "same name twice": (made(("a.jpg", jpeg(1)), ("./a.jpg", jpeg(2))), ["a.jpg"], "in whose place"),
    "links": (link(), ["a.jpg"], "1 member of archives passed over"),
    "hidden": (
        made(("a.jpg", jpeg(1)), ("._a.jpg", b"x"), ("__MACOSX/b.jpg", b"x"), (".c/d.jpg", b"x")),
        ["a.jpg"],
        "3 hidden",
    ),
    "archive in it": (made(("a.jpg", jpeg(1)), ("in.zip", made(("b.jpg", jpeg(2))))), ["a.jpg"], "1 .zip"),
    "something before it": (b"#!/bin/sh\n" + made(("a.jpg", jpeg(1))), ["a.jpg"], ""),
    "a comment": (made(("a.jpg", jpeg(1)))[:-2] + b"\3\0abc", ["a.jpg"], ""),
}


@pytest.mark.parametrize("name", TAKEN)
def test_names_do_no_harm_and_what_is_no_plain_file_is_passed_over(name, tmp_path):
    check_taken(tmp_path / "a.zip", *TAKEN[name])


def test_backslashes_part_folders_where_nothing_else_does(tmp_path):
    content = made(("cats_1.jpg", jpeg(1)), ("dogs_1.jpg", jpeg(2))).replace(b"s_1.jpg", b"s\\1.jpg")
    (tmp_path / "a.zip").write_bytes(content)
    assert open_source(str(tmp_path / "a.zip")).class_names == ("cats", "dogs")


# Files that somebody made to do harm


def changed(content: bytes, signature: bytes, offset: int, form: str, value: int, which: int = 0) -> bytes:
    """The file with one number changed in a record of that signature."""
    at = [i for i in range(len(content)) if content.startswith(signature, i)][which] + offset
    packed = struct.pack(form, value)
    return content[:at] + packed + content[at + len(packed) :]


GOOD = made(("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)))
PACKED = made(("a.jpg", jpeg(1)), ("b.jpg", jpeg(2)), method=DEFLATED)


def both(content: bytes, local: int, central: int, form: str, value: int) -> bytes:
    """A number changed in the second member's own header and in the directory."""
    content = changed(content, LOCAL, local, form, value, 1)
    return changed(content, CENTRAL, central, form, value, 1)


def every(content: bytes, change: Callable[[bytes, int], bytes]) -> bytes:
    return change(change(content, 0), 1)


def zip64(content: bytes, directory: int) -> bytes:
    """With records of 64 bits that put the directory at another place."""
    end = content.rindex(END)
    entries, _, size, place = struct.unpack("<2H2L", content[end + 8 : end + 20])
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, place + directory)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    tail = content[end : end + 8] + struct.pack("<2H2L", 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF) + b"\0\0"
    return content[:end] + record + locator + tail


REFUSED = {
    "empty": b"",
    "no zip": b"this is a text " * 100,
    "an image": jpeg(0),
    "a tar": b"a.jpg" + b"\0" * 10235,
    "cut in the directory": GOOD[:-40],
    "cut in an image": GOOD[:500],
    "beginning missing": GOOD[100:],
    "garbage behind": GOOD + b"x" * 70,
    "comment longer than the file": GOOD[:-2] + b"\xff\xff",
    "no members": made(),
    "no images": made(("notes.txt", b"x")),
    "directory at another place": changed(GOOD, END, 16, "<L", 1 << 30),
    "directory of gigabytes": changed(GOOD, END, 12, "<L", 1 << 31),
    "fewer members than stated": changed(changed(GOOD, END, 8, "<H", 9), END, 10, "<H", 9),
    "more members than stated": changed(changed(GOOD, END, 8, "<H", 1), END, 10, "<H", 1),
    "part of several": changed(changed(GOOD, END, 4, "<H", 1), END, 6, "<H", 1),
    "member on another disk": changed(GOOD, CENTRAL, 34, "<H", 1, 1),
    "member at the other's place": changed(GOOD, CENTRAL, 42, "<L", 0, 1),
    "member within the other": changed(GOOD, CENTRAL, 42, "<L", 100, 1),
    "member in the directory": changed(GOOD, CENTRAL, 42, "<L", len(GOOD) - 60, 1),
    "member of gigabytes": changed(
        changed(GOOD, CENTRAL, 20, "<L", 1 << 31, 1), CENTRAL, 24, "<L", 1 << 31, 1
    ),
    "first member of all bytes": changed(GOOD, CENTRAL, 20, "<L", len(GOOD) - 60, 0),
    "extra field that is cut": changed(GOOD, CENTRAL, 30, "<H", 4, 0),
    "name that is no UTF-8": changed(GOOD, CENTRAL, 8, "<H", 0x800, 1).replace(b"b.jpg", b"\xff.jpg"),
    "version of the future": changed(GOOD, CENTRAL, 6, "<H", 999, 1),
    "64 bits at another place": zip64(GOOD, 1 << 62),
    "encrypted": every(GOOD, lambda z, i: changed(changed(z, LOCAL, 6, "<H", 1, i), CENTRAL, 8, "<H", 1, i)),
    "Deflate64": every(GOOD, lambda z, i: changed(changed(z, LOCAL, 8, "<H", 9, i), CENTRAL, 10, "<H", 9, i)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_zip_file_is_refused_in_one_line(name, tmp_path):
    (tmp_path / "a.zip").write_bytes(REFUSED[name])
    with pytest.raises(LaminaError) as error:
        open_source(str(tmp_path / "a.zip"))
    assert "\n" not in str(error.value)
    assert "a.zip" in str(error.value)


def test_records_of_64_bits_are_read(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip64(GOOD, 0))
    assert open_source(str(tmp_path / "a.zip")).read(1).shape == (3, 24, 36)


def bomb(stated: int) -> bytes:
    """50 MB in 50 kB, of which another size is stated."""
    whole = made(("a.jpg", jpeg(1)), ("b.jpg", b"\0" * 50_000_000), method=DEFLATED)
    return both(whole, 22, 24, "<L", stated)


UNREADABLE = {
    "encrypted": (both(GOOD, 6, 8, "<H", 1), Reason.PACKED),
    "LZMA": (both(GOOD, 8, 10, "<H", 14), Reason.PACKED),
    "no method": (both(GOOD, 8, 10, "<H", 12345), Reason.PACKED),
    "header of another method": (changed(GOOD, LOCAL, 8, "<H", DEFLATED, 1), Reason.BROKEN),
    "encrypted by its header alone": (changed(GOOD, LOCAL, 6, "<H", 1, 1), Reason.BROKEN),
    "no header at its place": (changed(GOOD, LOCAL, 0, "<L", 0, 1), Reason.BROKEN),
    "header with a long name": (changed(GOOD, LOCAL, 26, "<H", 0xFFFF, 1), Reason.BROKEN),
    "stored with two sizes": (changed(GOOD, CENTRAL, 24, "<L", 5, 1), Reason.BROKEN),
    "compressed bytes damaged": (PACKED.replace(PACKED[-300:-290], b"\xff" * 10), Reason.BROKEN),
    "other checksum": (both(PACKED, 14, 16, "<L", 1), Reason.BROKEN),
    "cut compressed bytes": (both(PACKED, 18, 20, "<L", 100), Reason.BROKEN),
    "50 MB": (bomb(50_000_000), Reason.TOO_LARGE),
    "more than stated": (bomb(1000), Reason.BROKEN),
    "less than stated": (both(PACKED, 22, 24, "<L", 10_000), Reason.BROKEN),
    "gigabytes stated": (both(PACKED, 22, 24, "<L", 0xFFFFFFF0), Reason.TOO_LARGE),
    "empty": (made(("a.jpg", jpeg(1)), ("b.jpg", b"")), Reason.EMPTY),
    "no image": (made(("a.jpg", jpeg(1)), ("b.jpg", b"no image")), Reason.UNKNOWN_FORMAT),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_member_that_cannot_be_read_is_one_unreadable_image(name, tmp_path):
    content, reason = UNREADABLE[name]
    (tmp_path / "a.zip").write_bytes(content)
    source = open_source(str(tmp_path / "a.zip"))
    assert source.read(0).shape == (3, 24, 36)
    for read in (source.read, source.size):
        with pytest.raises(Unreadable) as error:
            read(1, Decoding(max_decode_mb=20))
        assert error.value.reason == reason


def test_a_zip_file_that_is_replaced_under_a_run_gives_unreadable_images(tmp_path):
    (tmp_path / "a.zip").write_bytes(GOOD)
    source = open_source(str(tmp_path / "a.zip"))
    (tmp_path / "a.zip").write_bytes(PACKED)
    with pytest.raises(Unreadable, match="changed or replaced"):
        source.read(0)
