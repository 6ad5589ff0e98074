"""Names and numbers of many images: equal to lists, in little memory, the same digests as ever."""

from __future__ import annotations

import copy
import hashlib
import multiprocessing
import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from lamina.data import digest
from lamina.data.columns import Names, Numbers, SharedArray, chunks
from lamina.data.decode.decode import open_regular
from lamina.data.digest import images_sha256, names_sha256
from lamina.data.folders import take_part
from lamina.data.sources import FileSource, Source, Subset

ODD = ["a/b.jpg", "", "é", os.fsdecode(b"\xff.jpg"), "a\nb"]


def test_names_at_some_places_are_those_of_a_list():
    for places in ([], [4, 0, 0, 3], range(5), Numbers([1, 2])):
        assert list(Names(ODD).at(places)) == [ODD[i] for i in places]


def test_numbers_are_a_list_to_their_readers():
    values = [3, -1, 7, 3]
    numbers = Numbers(values)
    assert numbers == values
    assert values == numbers
    assert (numbers, 1) == (values, 1)
    assert numbers != [3, -1, 7]
    assert numbers != (3, -1, 7, 3)  # as lists are
    assert Numbers([]) == []
    assert repr(numbers) == repr(values)
    assert Counter(numbers) == Counter(values)
    assert [numbers[np.int64(2)], numbers[-1], numbers[1:], numbers.at([2, 0])] == [7, 3, [-1, 7, 3], [7, 3]]
    assert torch.equal(torch.tensor(numbers), torch.tensor(values))
    assert Numbers([]) or True
    with pytest.raises(IndexError):
        numbers[4]
    assert Numbers([1 << 40])[0] == 1 << 40


@pytest.mark.parametrize("indices", [range(5), range(1, 4), range(4, -1, -2), [3, 3, 0], []])
def test_names_by_index_and_as_bytes(indices):
    names = Names(ODD)
    assert list(names) == ODD
    assert names[1:3] == ODD[1:3]
    assert names.encoded(indices) == b"".join(os.fsencode(ODD[i]) + b"\0" for i in indices)


def test_digests_are_those_of_a_list(monkeypatch):
    """SHA-256 of each name and a NUL, and of how Python writes labels and classes; whatever is taken together."""
    monkeypatch.setattr("lamina.data.columns._CHUNK", 3)
    names = [f"{i:03d}é.png" for i in range(10)]
    text = b"".join(os.fsencode(name) + b"\0" for name in names)
    for labels in (None, [], [0, 1] * 5):
        for classes in ((), ("a", "\udcff")):
            expected = hashlib.sha256(b"x" + text + repr((labels, classes)).encode()).hexdigest()
            own = None if labels is None else Numbers(labels)
            assert images_sha256(b"x", [text], own, classes) == expected
    source = FileSource("", names)
    assert names_sha256(source.encoded_names(range(10))) == hashlib.sha256(text).hexdigest()
    assert [len(some) for some in chunks(range(10))] == [3, 3, 3, 1]


@pytest.mark.parametrize("unknown", [[], [2, 9], range(12)])
def test_the_digest_of_files_within_something_else_is_that_of_the_files(unknown, tmp_path, monkeypatch):
    """Whichever sizes are known before; one file is not there."""
    monkeypatch.setattr(digest, "SAMPLED_FILES", 4)
    monkeypatch.setattr(digest, "SAMPLED_BYTES", 5)
    paths = [str(tmp_path / str(i)) for i in range(12)]
    for i, path in enumerate(paths):
        Path(path).write_bytes(bytes(range(2 * i)))
    Path(paths[6]).unlink()  # one of the four
    sizes = np.arange(0, 24, 2)
    sizes[list(unknown)] = -1
    found = digest.encoded_digest(sizes, lambda k: open_regular(paths[k]))
    assert found == digest.files_digest(paths, 12)


class Renamed(FileSource):
    def name(self, i: int) -> str:
        return f"{i}.png"


def test_names_of_a_source_of_ones_own_and_of_a_subset():
    source = Renamed("", ["", "", ""])
    assert b"".join(source.encoded_names(range(3))) == b"0.png\x001.png\x002.png\x00"
    assert b"".join(Subset(source, [2, 0]).encoded_names(range(2))) == b"2.png\x000.png\x00"
    twice = Subset(Subset(FileSource("", list("abcd"), [3, 2, 1, 0], list("wxyz")), [3, 1, 0]), [2, 0])
    assert b"".join(twice.encoded_names([1, 0])) == b"d\0a\0"
    assert twice.labels == [3, 0]


@pytest.mark.parametrize("seed", [0, 3])
def test_the_held_out_part_is_by_the_hash_of_the_names(seed):
    """The rule as `open_source` states it, by sorting a list; of one name twice the first comes first."""
    drawn = np.random.default_rng(seed)
    names = [f"{n}.jpg" for n in drawn.integers(0, 60, 100).tolist()]
    labels = drawn.integers(0, 3, 100).tolist()
    expected = []
    for label in range(3):
        own = [i for i in range(100) if labels[i] == label]
        own.sort(key=lambda i: hashlib.sha256(f"{seed}/{names[i]}".encode()).digest())
        expected += own[: round(0.2 * len(own))]
    source = FileSource("", names, labels, "abc")
    assert take_part(source, True, 0.2, seed).indices == sorted(expected)
    assert take_part(source, False, 0.2, seed).indices == sorted(set(range(100)) - set(expected))


def test_hashes_that_begin_alike_are_told_apart_by_their_ends(monkeypatch):
    class Short:
        def __init__(self, text: bytes) -> None:
            self.whole = hashlib.new("md5", text).digest()

        def digest(self) -> bytes:
            return self.whole[:1] + bytes(7) + self.whole

    source = FileSource("", [f"{i}.jpg" for i in range(2000)])
    monkeypatch.setattr("lamina.data.folders.hashlib.sha256", Short)
    expected = sorted(range(2000), key=lambda i: Short(f"0/{i}.jpg".encode()).digest())[:400]
    assert take_part(source, True, 0.2, 0).indices == sorted(expected)


def _sum_in_worker(source: Source, answers: multiprocessing.Queue) -> None:
    answers.put((source.name(1), sum(source.labels or ()), source.labels._shared.values.flags.owndata))


def test_a_worker_that_is_not_forked_shares_the_arrays(tmp_path):
    """What is in memory is given to it as shared memory, and not written into the pipe."""
    source = FileSource("", [f"{i:07d}" for i in range(400_000)], [1] * 400_000, ["a", "b"])
    context = torch.multiprocessing.get_context("spawn")
    answers = context.Queue()
    started = context.Process(target=_sum_in_worker, args=(source, answers))
    started.start()
    try:
        name, total, own = answers.get(timeout=120)
    finally:
        started.join(60)
    assert (name, total, own) == ("0000001", 400_000, False)
    file = tmp_path / "numbers"
    np.arange(5, dtype=np.int64).tofile(file)
    mapped = Numbers(SharedArray.mapped(str(file), 8, "<i8", (3,)))
    assert mapped == [1, 2, 3]
    assert len(pickle.dumps(mapped)) < 500
    assert copy.deepcopy(mapped) == [1, 2, 3]
