"""Archives and folders at a remote: the same images as in a folder, few requests, and errors that pass."""

from __future__ import annotations

import hashlib
import io
import operator
import pickle
import sys
import tarfile
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.archives import jpeg, two_parts, zipped
from helpers.remote import Remote, register
from lamina.core.errors import LaminaError
from lamina.core.text import printable, without_secrets
from lamina.data import digest
from lamina.data.archives import files
from lamina.data.archives.shards import is_archive, without_ending
from lamina.data.check import check
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.open import held_out, open_source
from lamina.data.options import DataOptions
from lamina.data.pack.write import pack
from lamina.data.remote import requests
from lamina.data.remote.ahead import ReadAhead
from lamina.data.remote.blocks import BlockFile
from lamina.data.sources import Source, Subset, images_digest
from lamina.runs.data_facts import data_facts

pytest.importorskip("fsspec", reason="fsspec is not installed (extra remote)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_parts(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long readers would have waited; the cache is one of the test's own."""
    monkeypatch.setenv("LAMINA_CACHE", str(tmp_path / "cache"))
    found: list[float] = []
    monkeypatch.setattr(requests.time, "sleep", found.append)
    return found


@pytest.fixture
def remote() -> Remote:
    return Remote()


@pytest.fixture
def system(remote: Remote, folder: Path) -> Any:
    """Of the same images a folder, shards of tar, and a zip file."""
    system = register(remote)
    for file in folder.rglob("*.jpg"):
        system.pipe(f"/photos/{file.relative_to(folder)}", file.read_bytes())
    for part in ("train", "val"):
        for name in ("cats", "dogs"):
            into = io.BytesIO()
            with tarfile.open(fileobj=into, mode="w") as tar:
                tar.add(folder / part / name, name)
            system.pipe(f"/shards/{part}-{name}.tar", into.getvalue())
    into = io.BytesIO()
    zipped(into, folder, ["train", "val"], 8)
    system.pipe("/zips/all.zip", into.getvalue())
    remote.requests.clear()
    return system


def batches(source: Source, first: int, workers: int, rank: int, world: int) -> list[torch.Tensor]:
    loader = TrainLoader(source, DataOptions(workers=workers), 3, 4, rank, world, image_size=(16, 16))
    return [batch.images for batch in loader.batches(first, 5)]


# The same images as in a folder


@pytest.mark.parametrize(
    "spec",
    [
        "photos",
        "photos/",
        "zips/all.zip",
        "zips",
        "shards/*.tar",
        "shards/{train,val}-{cats,dogs}.tar",
        "shards/",
    ],
)
def test_what_is_at_a_remote_is_the_folder_that_it_was_made_of(spec, folder, system):
    for split in (None, "train", "val", "all"):
        own, of_folder = open_source(f"counted://{spec}", split), open_source(str(folder), split)
        assert (own.labels, own.class_names) == (of_folder.labels, of_folder.class_names)
        every = range(len(own))
        assert own.content(every) == of_folder.content(every)
        assert [own.size(i) for i in every] == [(24, 36)] * len(own)
        assert all(torch.equal(own.read(i), of_folder.read(i)) for i in every)
        if "shards" not in spec:  # whose names begin with those of the shards
            assert [own.name(i) for i in every] == [of_folder.name(i) for i in every]
            assert images_digest(own) == images_digest(of_folder)
    assert held_out(f"counted://{spec}") == "val"
    found = check(own, DataOptions(workers=0))
    assert (found.ok, found.n_files) == (True, 20)
    assert found.n_bytes == sum(file.stat().st_size for file in folder.rglob("*.jpg"))


@pytest.mark.parametrize("spec", ["photos", "zips", "shards"])
def test_batches_are_those_of_the_folder_from_any_step_on_for_any_workers_and_ranks(spec, folder, system):
    own, of_folder = open_source(f"counted://{spec}"), open_source(str(folder))
    for first, workers, rank, world in ((0, 2, 0, 1), (2, 0, 0, 1), (3, 0, 1, 2)):
        expected = batches(of_folder, first, 0, rank, world)
        assert all(map(torch.equal, batches(own, first, workers, rank, world), expected))


def test_a_process_that_is_started_anew_opens_the_remote_itself(folder, tmp_path):
    zipped(tmp_path / "all.zip", folder, ["train"], 8)
    source = open_source(f"file://{tmp_path}/all.zip")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        found = pool.submit(operator.methodcaller("content", range(10)), source).result(120)
    assert found == open_source(str(folder / "train")).content(range(10))


# Requests


@pytest.mark.parametrize("spec", ["photos", "zips", "shards"])
def test_the_images_of_a_batch_are_read_at_the_same_time(spec, system, monkeypatch):
    """Each request waits until eight are there, which would never be so if one came after the other."""
    source = open_source(f"counted://{spec}", "all")
    source.read(0)
    together = threading.Barrier(8)
    whole = type(system).cat_file

    def waiting(self: Any, *given: Any, **more: Any) -> bytes:
        together.wait(20)
        return whole(self, *given, **more)

    monkeypatch.setattr(type(system), "cat_file", waiting)
    (batch,) = eval_batches(Subset(source, range(8)), (16, 16), 3, 8)
    assert len(batch) == 8
    loader = TrainLoader(source, DataOptions(workers=0), 3, 8, image_size=(16, 16))
    assert len(next(iter(loader.batches(0, 1)))) == 8


def test_what_was_read_ahead_is_given_as_often_as_it_was_listed_and_not_passed_on(system, remote):
    source, expected = open_source("counted://zips", "all"), open_source("counted://zips", "all").read(7)
    source.read(0)
    remote.requests.clear()
    source.read_ahead([7, 7])
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    for n, each in ((1, source), (1, source), (2, source), (3, copy)):
        assert torch.equal(each.read(7), expected)
        assert remote.n("cat_file") == n


@pytest.mark.parametrize("spec", ["photos", "zips", "shards"])
def test_check_and_pack_read_each_image_once(spec, system, remote, tmp_path):
    source = open_source(f"counted://{spec}", "all")
    remote.requests.clear()
    assert check(source, DataOptions(workers=0), duplicates=True).ok
    assert remote.n("cat_file") == 20
    remote.requests.clear()
    assert pack(source, tmp_path / "packed", side=64, workers=0).images == 20
    assert remote.n("cat_file") == 20


def test_where_the_remote_is_gone_nobody_waits_for_the_other_images():
    """Of 100 images 16 are being read when one says that the remote is gone: the others are never asked for."""
    ahead, asked, over = ReadAhead(), [], threading.Event()

    def read(i: int) -> io.BytesIO:
        asked.append(i)
        if i == 0:
            raise LaminaError("gone")
        over.wait(30)
        return io.BytesIO(b"x")

    ahead.start(range(100), read)
    with pytest.raises(LaminaError, match="gone"):
        ahead.take(0)
    over.set()
    ahead._pool.shutdown()  # type: ignore[union-attr]
    assert len(asked) <= requests.THREADS + 1


def test_an_image_that_cannot_be_read_leaves_the_others(system, remote):
    source = open_source("counted://photos", "all")
    remote.fails = lambda method, path: FileNotFoundError(path) if path.endswith("train/cats/0.jpg") else None
    (batch,) = eval_batches(Subset(source, range(8)), (16, 16), 3, 8)
    assert (len(batch), len(batch.faults)) == (7, 1)
    assert remote.n("cat_file") == 8


def test_results_do_not_gather_in_memory_and_come_in_order():
    ready: list[int] = []
    for taken, result in enumerate(requests.in_parallel(lambda i: ready.append(i) or i, range(500))):
        assert result == taken
        assert len(ready) - taken <= 2 * requests.THREADS + 1
    assert len(ready) == 500


def test_digests_of_samples_are_those_of_the_folder(folder, system, tmp_path, monkeypatch):
    """Of five images in all the bytes at their ends count, of the others the size; one is not there."""
    monkeypatch.setattr(digest, "SAMPLED_FILES", 5)
    monkeypatch.setattr(digest, "SAMPLED_BYTES", 100)
    order = [7, 1, 19, *range(20), 4]
    expected = open_source(str(folder), "all").content(order)
    zipped(tmp_path / "all.zip", folder, ["train", "val"], 8)
    for spec in ("counted://photos", "counted://zips", "counted://shards", str(tmp_path / "all.zip")):
        source = open_source(spec, "all")
        assert source.content(order) == expected
        assert source.content([]) == open_source(str(folder), "all").content([])
    sources = [open_source(f"counted://{spec}", "all") for spec in ("photos", "zips")]
    system.pipe("/zips/all.zip", b"another one")
    system.rm("/photos/train/cats/1.jpg")
    for source in sources:
        assert source.content([1, 1]) == hashlib.sha256(b"unreadable unreadable ").digest()


def test_each_image_is_one_request(system, remote):
    for spec in ("photos", "zips", "shards"):
        source = open_source(f"counted://{spec}", "all")
        source.read(0)
        remote.requests.clear()
        for i in (3, 5, 7):
            source.read(i)
        assert remote.n("cat_file") == 3


def tar_of(n: int, size: int) -> bytes:
    into, content = io.BytesIO(), np.random.default_rng(0).bytes(size)
    with tarfile.open(fileobj=into, mode="w") as tar:
        for i in range(n):
            member = tarfile.TarInfo(f"{i:05d}.jpg")
            member.size = size
            tar.addfile(member, io.BytesIO(content))
    return into.getvalue()


@pytest.mark.parametrize(
    ("n", "size", "most_requests", "most_share"), [(2000, 2000, 8, 1.01), (6, 3_000_000, 9, 0.1)]
)
def test_an_index_is_made_by_few_requests_and_kept(n, size, most_requests, most_share, system, remote):
    content = tar_of(n, size)
    system.pipe("/big.tar", content)
    remote.requests.clear()
    assert len(open_source("counted://big.tar", "all")) == n
    assert remote.n("cat_file") <= most_requests
    assert remote.n_bytes() <= most_share * len(content)
    remote.requests.clear()
    assert len(open_source("counted://big.tar", "all")) == n
    assert remote.n("cat_file") == 0
    system.pipe("/big.tar", tar_of(3, 100))
    assert len(open_source("counted://big.tar", "all")) == 3


def test_blocks_give_the_bytes_of_the_file(system, remote):
    content = np.random.default_rng(1).bytes(3_000_000)
    system.pipe("/blob", content)
    file, draw = BlockFile("counted://blob", len(content)), np.random.default_rng(2)
    assert file.seek(-22, 2) == len(content) - 22
    assert file.read() == content[-22:]
    for _ in range(300):
        place, size = (
            int(draw.integers(0, len(content) + 10)),
            int(draw.integers(0, 3) * draw.integers(0, 500_000)),
        )
        file.seek(place)
        assert file.read(size) == content[place : place + size]
        assert file.tell() == max(place, min(place + size, len(content))) or place > len(content)


# Errors


@pytest.mark.parametrize("spec", ["photos", "zips", "shards"])
def test_one_error_in_twenty_loses_no_image(spec, folder, system, remote, waits):
    remote.flaky(0.05)
    source = open_source(f"counted://{spec}", "all")
    of_folder = open_source(str(folder), "all")
    for _ in range(20):
        found = list(eval_batches(source, (16, 16), 3, 8))
        assert not any(batch.faults for batch in found)
        expected = list(eval_batches(of_folder, (16, 16), 3, 8))
        assert all(torch.equal(a.images, b.images) for a, b in zip(found, expected, strict=True))
    assert len(waits) > 10
    assert len(set(waits)) == len(waits)  # readers do not come back together
    assert all(0.2 < wait < 20 for wait in waits)


class Refused(Exception):
    """As packages of protocols raise an answer of HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError("gone"), Reason.MISSING),
        (PermissionError("not yours"), Reason.FORBIDDEN),
        (type("NoCredentialsError", (Exception,), {})(), Reason.FORBIDDEN),
        (Refused(404), Reason.MISSING),
        (Refused(403), Reason.FORBIDDEN),
        (Refused(416), Reason.BROKEN),
    ],
)
def test_what_does_not_pass_is_not_asked_for_again(error, reason, system, remote, waits):
    sources = [open_source(f"counted://{spec}", "all") for spec in ("photos", "zips", "shards")]
    remote.fails = lambda method, path: error
    for source in sources:
        with pytest.raises(Unreadable) as found:
            source.read(0)
        assert found.value.reason == reason
    for spec in ("photos", "zips/all.zip", "shards/train-cats.tar"):
        with pytest.raises(LaminaError, match="cannot be read") as refused:
            open_source(f"counted://{spec}")
        assert "\n" not in str(refused.value)
    assert not waits


@pytest.mark.parametrize("error", [OSError("unreachable"), TimeoutError(), Refused(503), Refused(429)])
def test_a_remote_that_is_gone_ends_in_one_line_after_all_tries(error, system, remote, waits):
    source = open_source("counted://zips", "all")
    source.read(0)
    remote.fails = lambda method, path: error
    with pytest.raises(LaminaError, match=r"8 times in a row.*--resume") as found:
        source.read(1)
    assert "\n" not in str(found.value)
    assert len(waits) == requests.TRIES - 1
    assert 20 < sum(waits) < 50
    with pytest.raises(LaminaError, match="4 times in a row"):
        open_source("counted://zips")
    with pytest.raises(LaminaError, match="8 times in a row"):
        batches(Subset(source, [0]), 0, 0, 0, 1)  # one alone, so that no other request goes on


def test_a_pack_of_a_remote_that_is_gone_ends_in_one_line_from_workers_too(system, remote, waits, tmp_path):
    source = open_source("counted://photos", "all")
    remote.fails = lambda method, path: OSError("unreachable")
    for workers in (0, 1):
        with pytest.raises(LaminaError, match="8 times in a row") as found:
            pack(source, tmp_path / "packed", workers=workers)
        assert "\n" not in str(found.value)
    assert not (tmp_path / "packed").exists()


def test_no_connection_is_no_missing_file_whatever_fsspec_says_of_it(system, remote, waits):
    error = FileNotFoundError("counted://zips/all.zip")
    error.__cause__ = ConnectionError("refused")
    remote.fails = lambda method, path: error
    with pytest.raises(LaminaError, match="refused, 4 times in a row"):
        open_source("counted://zips/all.zip")
    error.__cause__ = KeyError("all.zip")
    with pytest.raises(LaminaError, match="missing"):
        open_source("counted://zips/all.zip")
    assert len(waits) == 3


def test_an_answer_that_is_cut_off_is_asked_for_again(system, remote, monkeypatch, waits):
    source = open_source("counted://shards", "all")
    expected = source.read(0)
    whole, answers = type(system).cat_file, []

    def cut(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        answers.append(whole(self, path, start, end))
        return answers[-1][:-1] if len(answers) < 3 else answers[-1]

    monkeypatch.setattr(type(system), "cat_file", cut)
    assert torch.equal(source.read(0), expected)
    assert (len(answers), len(waits)) == (3, 2)


def test_a_server_that_gives_whole_files_alone_is_refused(system, monkeypatch):
    whole = type(system).cat_file
    monkeypatch.setattr(type(system), "cat_file", lambda self, path, **more: whole(self, path))
    with pytest.raises(LaminaError, match="gives no parts of files"):
        open_source("counted://zips/all.zip").read(0)


def test_an_archive_that_is_replaced_under_a_run_gives_unreadable_images(system, monkeypatch):
    source = open_source("counted://shards", "all")
    source.read(0)
    content = system.cat_file("/shards/train-cats.tar")
    system.pipe("/shards/train-cats.tar", content)
    assert source.read(0).shape == (3, 24, 36)  # looked at a moment ago
    monkeypatch.setattr(files, "_LOOK_AGAIN_SECONDS", 1e-6)
    with pytest.raises(Unreadable, match="changed or replaced"):
        source.read(0)
    assert source.read(19).shape == (3, 24, 36)


def test_an_image_that_has_another_size_than_when_it_was_listed_is_unreadable(system):
    source = open_source("counted://photos", "all")
    system.pipe("/photos/train/cats/0.jpg", jpeg(5) + b"more")
    with pytest.raises(Unreadable) as found:
        source.read(0)
    assert found.value.reason == Reason.BROKEN


# Names


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("counted://nothing/", "counted://nothing/ cannot be read: missing"),
        ("counted://shards/{train-cats,a,b}.tar", "a.tar cannot be read: missing.*and 1 more of 3"),
        ("counted://shards/*-x.tar", "no file matches"),
        ("counted://shards/a.tar.gz", "compressed"),
        ("counted://photos/*/*.jpg", "patterns name tar and zip files"),
        ("counted://texts/", "no images in counted://texts/: 1 file passed over"),
        ("nobodyknows://a/b.tar", "nobodyknows://a/b.tar cannot be opened"),
    ],
)
def test_wrong_names_are_said_in_one_line(spec, words, system):
    system.pipe("/texts/a.txt", b"x")
    with pytest.raises(LaminaError, match=words) as error:
        open_source(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("spec", "package"), [("s3://b/a.tar", "s3fs"), ("gs://b/photos/", "gcsfs")])
def test_a_package_that_is_missing_is_named(spec, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, spec[:2], raising=False)
    with pytest.raises(LaminaError, match=f"needs the package {package}; pip install {package}"):
        open_source(spec)


def test_what_is_hidden_or_no_image_is_passed_over_and_archives_among_images_are_too(system):
    system.pipe("/photos/._0.jpg", b"x")
    system.pipe("/photos/notes.txt", b"x")
    system.pipe("/photos/a.tar", b"x")
    source = open_source("counted://photos", "all")
    assert len(source) == 20
    notes = " ".join(source.notes)
    assert "1 .txt" in notes
    assert "1 .tar" in notes
    assert "1 hidden" in notes


def test_a_listing_without_sizes_is_completed(folder, system, monkeypatch):
    find = type(system).find
    without = lambda self, path, **more: {name: {"type": "file"} for name in find(self, path, **more)}  # noqa: E731
    monkeypatch.setattr(type(system), "find", without)
    every = range(20)
    assert open_source("counted://photos", "all").content(every) == open_source(str(folder), "all").content(
        every
    )


def test_the_name_of_a_file_of_the_web_ends_before_its_question_mark():
    for url, archive in (
        ("https://host/a.zip?X-Signature=a/b.jpg", True),
        ("https://host/a.jpg?X-Signature=a.zip", False),
        ("s3://bucket/a?.tar", True),
    ):
        assert is_archive(url) == archive
    assert without_ending("https://host/a.zip?x=1") == "https://host/a"


def test_one_image_at_a_remote(system):
    assert open_source("counted://photos/train/cats/0.jpg").read(0).shape == (3, 24, 36)


SIGNED = "https://me:word@host.org/train-{000..002}.tar?X-Amz-Signature=abc&X-Amz-Expires=60"


def test_signatures_and_passwords_of_addresses_are_not_shown_or_kept(tmp_path):
    for shown in (printable(f"cannot read {SIGNED}: gone"), without_secrets(f"lamina pretrain '{SIGNED}'")):
        assert "abc" not in shown
        assert "word" not in shown
        assert "https://host.org/train-{000..002}.tar?..." in shown
    source = open_source("sample:photos?crop=16&most=1")
    facts = data_facts("https://host.org/train.tar?X-Amz-Signature=abc", source)
    assert facts.source == "https://host.org/train.tar"
    assert facts.source == data_facts("https://host.org/train.tar?X-Amz-Signature=new", source).source
    plain = "see https://arxiv.org/abs/2308.00261, and a/b?split=train of hf:org/name@1?split=train"
    assert printable(plain) == plain
