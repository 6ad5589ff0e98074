"""Shards of tar: the same images as in a folder, read by position; and archives that somebody made to do harm."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.archives import check_taken, jpeg, two_parts
from lamina.core.errors import LaminaError
from lamina.data.archives import index
from lamina.data.archives import open as archives
from lamina.data.archives import shards as named
from lamina.data.archives.files import states_of
from lamina.data.archives.members import Members
from lamina.data.archives.progress import IndexProgress
from lamina.data.archives.shards import archives_named
from lamina.data.check import check
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions
from lamina.data.sources import images_digest

BLOCK = tarfile.BLOCKSIZE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_parts(tmp_path_factory.mktemp("photos"))


def packed(into: Path, root: Path, members: list[str]) -> Path:
    with tarfile.open(into, "w") as tar:
        for member in members:
            tar.add(root / member, member)
    return into


# The same images as in a folder


@pytest.fixture(scope="module")
def shards(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train-0.tar, train-1.tar and val-0.tar of the classes."""
    into = tmp_path_factory.mktemp("shards")
    packed(into / "train-0.tar", folder / "train", ["cats"])
    packed(into / "train-1.tar", folder / "train", ["dogs"])
    packed(into / "val-0.tar", folder / "val", ["cats", "dogs"])
    return into


@pytest.mark.parametrize("split", [None, "train", "val", "all"])
def test_one_archive_is_the_folder_that_it_was_made_of(split, folder, tmp_path):
    archive = packed(tmp_path / "all.tar", folder, ["train", "val"])
    own, of_folder = open_source(str(archive), split), open_source(str(folder), split)
    assert [own.name(i) for i in range(len(own))] == [of_folder.name(i) for i in range(len(of_folder))]
    assert (own.labels, own.class_names) == (of_folder.labels, of_folder.class_names)
    assert images_digest(own) == images_digest(of_folder)
    assert all(torch.equal(own.read(i), of_folder.read(i)) for i in range(len(own)))
    assert held_out(str(archive)) == "val"


@pytest.mark.parametrize("spec", ["", "/*.tar", "/{train-{0..1},val-0}.tar"])
def test_shards_have_parts_by_their_names(spec, shards, folder):
    if "{" in spec:
        spec = "/{train-0,train-1,val-0}.tar"
    for split in ("train", "val"):
        own, of_folder = open_source(f"{shards}{spec}", split), open_source(str(folder), split)
        assert (own.labels, own.class_names) == (of_folder.labels, of_folder.class_names)
        assert own.content(range(len(own))) == of_folder.content(range(len(of_folder)))
    assert own.name(0) == "val-0/cats/0.jpg"


@pytest.mark.parametrize("labelled", [False, True])
def test_names_are_in_order_where_those_of_two_archives_lie_among_each_other(labelled, tmp_path):
    members = {
        "shards/a.tar": ["z/1.jpg", "cat/9.jpg", "b/x/1.jpg"],
        "shards/a/b.tar": ["x/2.jpg", "dog/2.jpg"],
    }
    contents = {}
    for k, (path, names) in enumerate(members.items()):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(file, "w") as tar:
            for i, name in enumerate(names):
                contents[path.removeprefix("shards/")[:-4] + "/" + name] = jpeg(10 * k + i)
                add(tar, name, jpeg(10 * k + i))
                if labelled:
                    add(tar, name.replace(".jpg", ".cls"), name.encode())
    source = open_source(str(tmp_path / "shards"))
    assert [source.name(i) for i in range(5)] == sorted(contents)
    for i in range(5):
        with source.open(i) as file:  # type: ignore[union-attr]
            assert file.read() == contents[source.name(i)]
    classes = [source.class_names[label] for label in source.labels or ()]
    folders = ["dog", "b", "x", "cat", "z"]
    assert classes == (["dog/2.jpg", "b/x/1.jpg", "x/2.jpg", "cat/9.jpg", "z/1.jpg"] if labelled else folders)


def test_of_val_and_test_shards_val_is_held_out(folder, tmp_path):
    """As of folders."""
    for part in ("train", "val", "test"):
        packed(tmp_path / f"{part}-0.tar", folder / "val", ["cats", "dogs"])
    source = open_source(str(tmp_path), "val")
    assert {source.name(i).partition("/")[0] for i in range(len(source))} == {"val-0"}
    assert len(open_source(str(tmp_path), "all")) == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folder_from_any_step_on(workers, folder, tmp_path):
    archive = packed(tmp_path / "all.tar", folder, ["train", "val"])

    def batches(data: str, first: int) -> list[torch.Tensor]:
        options = DataOptions(workers=workers)
        loader = TrainLoader(open_source(data), options, 3, 4, image_size=(16, 16), in_chans=3)
        return [batch.images for batch in loader.batches(first, 4)]

    from_tar = batches(str(archive), 0)
    assert len(from_tar) == 4
    assert all(map(torch.equal, from_tar, batches(str(folder), 0)))
    assert all(map(torch.equal, from_tar[2:], batches(str(archive), 2)))


def test_cls_files_beside_the_images_are_their_classes(tmp_path):
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        for i, label in enumerate((10, 9, 10)):
            add(tar, f"{i:04d}.jpg", jpeg(i))
            add(tar, f"{i:04d}.cls", str(label).encode())
    source = open_source(str(tmp_path / "w.tar"))
    assert (source.class_names, source.labels) == (("9", "10"), [1, 0, 1])
    with tarfile.open(tmp_path / "w.tar", "a") as tar:
        add(tar, "0003.jpg", jpeg(3))
    source = open_source(str(tmp_path / "w.tar"))
    assert source.labels is None
    assert (
        source.no_labels
        == "1 of 4 images have no label beside them (.cls, or .json with label or cls), such as 0003.jpg"
    )


LABELS = {
    "label": ('{"label": "cat"}', "cat"),
    "cls": ('{"cls": 7, "caption": "x"}', "7"),
    "label before cls": ('{"cls": 7, "label": 8}', "8"),
    "label that is none, and cls": ('{"cls": 7, "label": null}', "7"),
    "half a character": ('{"label": "\\ud800 a\\u0000"}', "? a\ufffd"),
    "a list": ('{"label": [1]}', ""),
    "a fraction": ('{"label": 1.5}', ""),
    "a truth": ('{"label": true}', ""),
    "an empty text": ('{"label": " "}', ""),
    "no object": ("[1]", ""),
    "no JSON": ("{", ""),
    "nested too deep": ("[" * 100_000, ""),
    "a number of many digits": ('{"label": ' + "9" * 9999 + "}", ""),
}


@pytest.mark.parametrize("name", LABELS)
def test_a_json_file_beside_an_image_may_state_its_class(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    content, label = LABELS[name]
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        add(tar, "0.jpg", jpeg(0))
        add(tar, "0.json", content.encode())
    for _ in range(2):  # the second time from the cache
        found = members_of(tmp_path / "w.tar")
        assert found.labels == [label]
        assert found.passed_over.endings == ({} if label else {".json": 1})


def test_a_cls_file_counts_before_a_json_file_in_either_order(tmp_path):
    with tarfile.open(tmp_path / "w.tar", "w") as tar:
        add(tar, "0.jpg", jpeg(0))
        add(tar, "0.cls", b"a\0\n")
        add(tar, "0.json", b'{"label": "b"}')
        add(tar, "1.json", b'{"label": "d"}')
        add(tar, "1.cls", b"c")
        add(tar, "1.jpg", jpeg(1))
    assert open_source(str(tmp_path / "w.tar")).class_names == ("a\ufffd", "c")


def test_without_parts_a_share_is_held_out(folder, tmp_path):
    archive = str(packed(tmp_path / "train.tar", folder / "train", ["cats", "dogs"]))
    assert held_out(archive) == "all"
    sizes = [len(open_source(archive, split)) for split in (None, "train", "val", "all")]
    assert sizes == [10, 8, 2, 10]


def test_the_check_reads_every_member(shards):
    found = check(open_source(str(shards), "all"), DataOptions(workers=0))
    assert found.ok
    assert (found.n_files, sum(found.classes.values())) == (20, 20)


def test_a_folder_with_images_is_a_folder_of_images(folder, tmp_path):
    packed(tmp_path / "a.tar", folder, ["train"])
    (tmp_path / "x.jpg").write_bytes(jpeg(0))
    source = open_source(str(tmp_path))
    assert len(source) == 1
    assert "1 .tar" in source.notes[0]


def test_braces(tmp_path):
    for name in ("a-008.tar", "a-009.tar", "a-010.tar", "b.tar"):
        (tmp_path / name).write_bytes(b"")
    names = [Path(path).name for path in archives_named(f"{tmp_path}/a-{{008..010}}.tar") or ()]
    assert names == ["a-008.tar", "a-009.tar", "a-010.tar"]
    assert archives_named(f"{tmp_path}/a-{{008..010}}.png") is None
    for bad, words in (
        ("a-{008..011}.tar", "no .*a-011.tar; name only"),
        ("a-{9..8}.tar", "backwards"),
        ("a-{x}.tar", "not understood"),
        ("a-{0..99999999}.tar", "more than 1,000,000"),
        ("*-7.tar", "no file matches"),
        ("a-008.tar.gz", "compressed"),
    ):
        with pytest.raises(LaminaError, match=words):
            archives_named(f"{tmp_path}/{bad}")


# The index


def members_of(path: Path, keep: bool = True) -> Members:
    return index.members_of(str(path), states_of([str(path)])[0], keep, IndexProgress(1, 1))


@pytest.fixture
def walked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The archives that were walked through, rather than taken from the cache."""
    found: list[str] = []
    walk = index.read_tar
    monkeypatch.setattr(index, "read_tar", lambda path, *more: found.append(path) or walk(path, *more))
    return found


def test_an_index_is_kept_and_belongs_to_one_state_of_the_archive(folder, tmp_path, monkeypatch, walked):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    archive = packed(tmp_path / "a.tar", folder, ["train"])
    first = members_of(archive)
    assert (len(first.names), len(walked)) == (10, 1)
    assert members_of(archive) == first
    assert len(walked) == 1
    (kept,) = (tmp_path / "cache" / "archives").iterdir()  # the lock is gone
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(bytes(content))
    assert members_of(archive) == first  # damaged: walked again
    packed(archive, folder, ["train", "val"])
    assert len(members_of(archive).names) == 20
    assert len(walked) == 3


def test_the_indices_of_small_archives_are_kept_where_they_are_large_together(
    shards, tmp_path, monkeypatch, walked
):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    sizes = [file.stat().st_size for file in sorted(shards.iterdir())]
    for worth, walks in ((sum(sizes) + 1, 6), (sum(sizes), 3)):
        walked.clear()
        monkeypatch.setattr(archives, "_WORTH_BYTES", worth)
        for _ in range(2):
            assert len(open_source(str(shards), "all")) == 20
        assert len(walked) == walks


def test_the_names_of_shards_tell_whether_there_is_a_held_out_part(shards, monkeypatch):
    monkeypatch.setattr(index, "read_tar", None)  # would fail
    assert held_out(str(shards)) == "val"


def test_a_name_is_looked_up_once(shards, monkeypatch):
    listed: list[str] = []
    walk = os.walk
    monkeypatch.setattr(named.os, "walk", lambda top: listed.append(top) or walk(top))
    open_source(str(shards))
    assert listed == [str(shards)]


def indexed(archive: str, started: Any, done: Any, seconds: float) -> None:
    """Index an archive in another process, which takes so many seconds for it."""
    walk = index.read_tar

    def slow(*given: Any) -> Members:
        started.set()
        time.sleep(seconds)
        return walk(*given)

    index.read_tar = slow
    done.put(len(members_of(Path(archive)).names))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("dies", [False, True])
def test_one_process_indexes_and_the_others_wait_for_it_as_long_as_it_lives(
    dies, folder, tmp_path, monkeypatch, walked
):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    archive = packed(tmp_path / "a.tar", folder, ["train"])
    fork = multiprocessing.get_context("fork")
    started, done = fork.Event(), fork.Queue()
    other = fork.Process(target=indexed, args=(str(archive), started, done, 60.0 if dies else 0.5))
    other.start()
    assert started.wait(30)
    if dies:
        killer = threading.Timer(0.3, other.kill)
        killer.start()
    first = time.monotonic()
    assert len(members_of(archive).names) == 10
    assert 0.2 < time.monotonic() - first < 30
    assert len(walked) == dies  # it takes the other one's index, or makes its own
    other.join(30)
    assert dies or done.get(timeout=30) == 10
    assert [file.suffix for file in (tmp_path / "cache" / "archives").iterdir()] == [".arrays"]


def test_nobody_waits_for_ever_for_a_process_that_was_stopped(folder, tmp_path, monkeypatch, walked):
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "PATIENCE_SECONDS", 0.2)
    archive = packed(tmp_path / "a.tar", folder, ["train"])
    fork = multiprocessing.get_context("fork")
    started = fork.Event()
    other = fork.Process(target=indexed, args=(str(archive), started, fork.Queue(), 60.0))
    other.start()
    try:
        assert started.wait(30)
        assert len(members_of(archive).names) == 10
        assert len(walked) == 1
    finally:
        other.kill()
        other.join(30)


def test_a_cache_that_cannot_be_written_is_as_none(folder, tmp_path, monkeypatch):
    (tmp_path / "cache").write_text("a file")
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    assert len(members_of(packed(tmp_path / "a.tar", folder, ["train"])).names) == 10


def test_progress_is_said_now_and_then(capsys):
    now = iter([0.0, 1.0, 6.0, 6.0, 7.0, 22.0, 22.0])
    progress = IndexProgress(3, 4_000_000_000, lambda: next(now))
    progress.walked(1_000_000_000)
    assert capsys.readouterr().err == ""
    progress.walked(1_000_000_000)
    assert capsys.readouterr().err == "indexing 3 archives of 4.0 GB, once: 50% done\n"
    progress.waits(7.0, "process 5 on host\x1b")
    assert capsys.readouterr().err == ""
    progress.waits(22.0, "process 5 on host\x1b")
    assert (
        capsys.readouterr().err
        == "waiting for process 5 on host\\x1b, which indexes these archives, for 22 s\n"
    )


def test_an_archive_that_is_replaced_by_one_of_the_same_size_is_noticed(folder, tmp_path):
    archive = packed(tmp_path / "a.tar", folder, ["train"])
    source = open_source(str(archive))
    found, content = archive.stat(), bytearray(archive.read_bytes())
    archive.write_bytes(bytes(content))
    os.utime(archive, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    with pytest.raises(Unreadable, match="changed or replaced") as error:
        source.read(0)
    assert error.value.reason == Reason.BROKEN
    os.utime(archive, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert source.read(0).shape == (3, 24, 36)


def test_an_archive_that_changes_under_a_run_gives_unreadable_images(folder, tmp_path):
    archive = packed(tmp_path / "a.tar", folder, ["train"])
    source = open_source(str(archive))
    os.truncate(archive, 4 * BLOCK)
    with pytest.raises(Unreadable) as error:
        source.read(9)
    assert error.value.reason == Reason.BROKEN
    archive.unlink()
    with pytest.raises(Unreadable) as error:
        source.read(0)
    assert error.value.reason == Reason.MISSING


# Archives that somebody made to do harm


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **what: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for key, value in what.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(content))


def made(*members: tuple[str, bytes, dict[str, object]], form: int = tarfile.PAX_FORMAT) -> bytes:
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w", format=form) as tar:
        for name, content, what in members:
            add(tar, name, content, **what)
    return into.getvalue()


def with_header(content: bytes, at: int, change: Callable[[bytearray], None]) -> bytes:
    """The archive with the header at byte `at` changed, and its checksum right again."""
    header = bytearray(content[at : at + BLOCK])
    change(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:at] + bytes(header) + content[at + BLOCK :]


def sized(number: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[124 : 124 + len(number)] = number

    return change


GOOD = made(("a.jpg", jpeg(1), {}), ("b.jpg", jpeg(2), {}), form=tarfile.USTAR_FORMAT)
SECOND = BLOCK + -(-len(jpeg(1)) // BLOCK) * BLOCK
"""Where the second header is."""
NEGATIVE = b"\xff" * 12
"""-1 as tar writes large numbers."""
HUGE = b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7

REFUSED = {
    "empty": b"",
    "zeros alone": b"\0" * 10240,
    "no tar": b"this is a text " * 100,
    "an image": jpeg(0),
    "gzip": gzip.compress(GOOD),
    "cut in the header": GOOD[:300],
    "cut in the first image": GOOD[: BLOCK + 100],
    "cut in the second header": GOOD[: SECOND + 100],
    "cut in the second image": GOOD[: SECOND + BLOCK + 100],
    "without an end": GOOD[: SECOND + BLOCK + -(-len(jpeg(2)) // BLOCK) * BLOCK],
    "first checksum wrong": GOOD[:148] + b"0000000\0" + GOOD[156:],
    "second checksum wrong": GOOD[: SECOND + 148] + b"0000000\0" + GOOD[SECOND + 156 :],
    "garbage behind": GOOD + b"x" * 700,
    "another archive behind": GOOD + GOOD,
    "negative size": with_header(GOOD, SECOND, sized(NEGATIVE)),
    "size that points to itself": with_header(GOOD, SECOND, sized(b"\xff" * 10 + b"\xfe\0")),
    "size beyond the file": with_header(GOOD, SECOND, sized(b"00077777777\0")),
    "size of exabytes": with_header(GOOD, SECOND, sized(HUGE)),
    "size that is no number": with_header(GOOD, SECOND, sized(b"zzzzzzzzzzz\0")),
    "long name of gigabytes": with_header(
        with_header(GOOD, 0, sized(b"17777777777\0")), 0, lambda h: h.__setitem__(156, ord("L"))
    ),
    "pax size": made(("a.jpg", jpeg(1), {"pax_headers": {"size": "-4096"}})),
    "pax size of exabytes": made(("a.jpg", jpeg(1), {"pax_headers": {"size": "9" * 18}})),
    "no images": made(("notes.txt", b"x", {})),
    "no members": made(),
}
TAKEN = {
    "absolute name": (made(("/etc/a.jpg", jpeg(1), {})), ["etc/a.jpg"], ""),
    "name that climbs": (made(("../../a.jpg", jpeg(1), {})), ["../../a.jpg"], ""),
    "name with a new line": (made(("a\n\x1b[2Jb.jpg", jpeg(1), {})), ["a\n\x1b[2Jb.jpg"], ""),
    "name that is no text": (made(("\udcff.jpg", jpeg(1), {})), ["\udcff.jpg"], ""),
    "long name": (made((f"{'x' * 900}.jpg", jpeg(1), {})), [f"{'x' * 900}.jpg"], ""),
    "long GNU name": (
        made((f"{'x' * 900}.jpg", jpeg(1), {}), form=tarfile.GNU_FORMAT),
        [f"{'x' * 900}.jpg"],
        "",
    ),
    "same name twice": (made(("a.jpg", jpeg(1), {}), ("a.jpg", jpeg(2), {})), ["a.jpg"], "in whose place"),
    "links and devices": (
        made(
            ("a.jpg", jpeg(1), {}),
            ("b.jpg", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
            ("c.jpg", b"", {"type": tarfile.LNKTYPE, "linkname": "a.jpg"}),
            ("d.jpg", b"", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
            ("e.jpg", b"", {"type": tarfile.FIFOTYPE}),
        ),
        ["a.jpg"],
        "4 members of archives passed over",
    ),
    "hidden": (
        made(
            ("a.jpg", jpeg(1), {}),
            ("._a.jpg", b"x", {}),
            ("__MACOSX/b.jpg", b"x", {}),
            (".c/d.jpg", b"x", {}),
        ),
        ["a.jpg"],
        "3 hidden",
    ),
    "archive in it": (made(("a.jpg", jpeg(1), {}), ("in.tar", GOOD, {})), ["a.jpg"], "1 .tar"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_archive_is_refused_in_one_line(name, tmp_path):
    file = tmp_path / "a.tar"
    file.write_bytes(REFUSED[name])
    with pytest.raises(LaminaError) as error:
        open_source(str(file))
    assert "\n" not in str(error.value)
    assert "a.tar" in str(error.value)


@pytest.mark.parametrize("name", TAKEN)
def test_names_do_no_harm_and_what_is_no_plain_file_is_passed_over(name, tmp_path):
    check_taken(tmp_path / "a.tar", *TAKEN[name])


def test_an_image_that_is_damaged_in_an_archive_is_one_unreadable_image(tmp_path):
    (tmp_path / "a.tar").write_bytes(
        made(("a.jpg", jpeg(1), {}), ("b.jpg", b"no image", {}), ("c.jpg", b"", {}))
    )
    source = open_source(str(tmp_path / "a.tar"))
    assert source.read(0).shape == (3, 24, 36)
    for i, reason in ((1, Reason.UNKNOWN_FORMAT), (2, Reason.EMPTY)):
        with pytest.raises(Unreadable) as error:
            source.read(i)
        assert error.value.reason == reason


def test_headers_alone_are_read(tmp_path, monkeypatch):
    """An archive of images of many megabytes is indexed by its headers."""
    (tmp_path / "a.tar").write_bytes(made(("a.jpg", b"x" * 5_000_000, {}), ("b.jpg", b"x" * 5_000_000, {})))
    taken: list[int] = []
    from lamina.data.archives import tar

    read = tar._Headers.read
    monkeypatch.setattr(tar._Headers, "read", lambda self, n=-1: taken.append(n) or read(self, n))
    assert len(members_of(tmp_path / "a.tar", keep=False).names) == 2
    assert sum(n for n in taken[:-2]) < 10 * BLOCK


@pytest.mark.parametrize("part", ["", "train"])
def test_a_folder_that_holds_all_others_is_neither_class_nor_part(part, folder, tmp_path):
    root = folder / part
    inside = [path.relative_to(root).as_posix() for path in sorted(root.rglob("*.jpg"))]
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name in inside:
            tar.add(root / name, f"./photos/{name}")
    for split in ("train", "val", "all"):
        there, here = open_source(tmp_path / "photos.tar", split), open_source(root, split)
        assert there.class_names == here.class_names == ("cats", "dogs")
        assert there.labels is not None
        assert here.labels is not None
        assert sorted(there.labels) == sorted(here.labels)
        if not part:
            assert [there.name(i) for i in range(len(there))] == [
                f"photos/{here.name(i)}" for i in range(len(here))
            ]


def test_an_archive_of_one_part_keeps_its_part_as_the_outermost_folder(folder, tmp_path):
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(folder / "train", "train")
    assert "train" in open_source(tmp_path / "photos.tar").no_labels
