"""Batches depend on (seed, step) alone; bad files cost their own slot and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Bool, Int64
from PIL import Image
from torch import Tensor

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, bits, permutation, sample_keys, uniform
from lamina.data.loading.bad_files import FaultBudget
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.loading.sampler import Stream
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.data.stats import channel_stats

N = 22


class HalfHidden:
    """A masking for tests: the half of the patches with the smallest numbers."""

    def __call__(self, keys: Int64[Tensor, "B"], grid: tuple[int, int]) -> Bool[Tensor, "B N"]:
        n = grid[0] * grid[1]
        return uniform(keys, n, Purpose.MASK).argsort(1).argsort(1) < n // 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """N small photographs in two classes; all have different sizes."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for k in range(N):
        (root / "ab"[k % 2]).mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "ab"[k % 2] / f"{k:02d}.png")
    return root


def loader(folder: Path, workers: int = 0, rank: int = 0, world: int = 1, **options: object) -> TrainLoader:
    return TrainLoader(
        open_source(folder),
        DataOptions(workers=workers, **options),  # type: ignore[arg-type]
        seed=3,
        batch_size=6,
        rank=rank,
        world=world,
        image_size=(16, 16),
        masking=HalfHidden(),
        grid=(4, 4),
    )


def assert_same(got: Iterator[Batch] | list[Batch], want: list[Batch]) -> None:
    got = list(got)
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        for name in ("images", "keys", "mask", "labels"):
            assert torch.equal(getattr(a, name), getattr(b, name)), name
        assert a.faults == b.faults


# --- the stream -----------------------------------------------------------------------------------------


def test_each_epoch_holds_each_sample_once_and_batches_span_epochs() -> None:
    stream = Stream(n_samples=7, seed=1, batch_size=4)
    samples = [sample for step in stream.steps(0, 7) for sample in step]
    for epoch in range(4):
        want = [(epoch, int(i)) for i in permutation(1, epoch, 7)]
        assert samples[7 * epoch : 7 * (epoch + 1)] == want
        assert sorted(index for _, index in want) == list(range(7))


def test_a_batch_may_be_larger_than_the_source() -> None:
    (step,) = Stream(n_samples=3, seed=0, batch_size=8).steps(5, 6)
    assert [epoch for epoch, _ in step] == [13, 13, 14, 14, 14, 15, 15, 15]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_take_contiguous_parts_of_the_same_batches(world: int) -> None:
    whole = list(Stream(7, 1, 6).steps(0, 5))
    parts = [list(Stream(7, 1, 6, rank, world).steps(0, 5)) for rank in range(world)]
    assert [[sample for part in parts for sample in part[k]] for k in range(5)] == whole


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(LaminaError, match="multiple of the 4"):
        Stream(7, 1, 6, 0, 4)
    with pytest.raises(LaminaError, match="no images"):
        Stream(0, 1, 6)


# --- batches --------------------------------------------------------------------------------------------


def test_a_batch_has_what_a_method_needs(folder: Path) -> None:
    batch = next(iter(loader(folder).batches(0, 1)))
    assert batch.images.shape == (6, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    order = permutation(3, 0, N)[:6]
    assert batch.keys is not None
    assert torch.equal(batch.keys, sample_keys(3, 0, order))
    assert batch.labels is not None
    assert batch.labels.tolist() == [open_source(folder).labels[i] for i in order]  # type: ignore[index]
    assert batch.mask is not None
    assert batch.mask.sum(1).tolist() == [8] * 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(folder: Path, workers: int) -> None:
    want = list(loader(folder).batches(0, 9))
    assert_same(loader(folder, workers).batches(0, 9), want)


@pytest.mark.parametrize("world", [2, 3])
def test_ranks_change_nothing(folder: Path, world: int) -> None:
    want = list(loader(folder).batches(0, 5))
    ranks = [list(loader(folder, 0, rank, world).batches(0, 5)) for rank in range(world)]
    for k, whole in enumerate(want):
        for name in ("images", "keys", "mask", "labels"):
            joined = torch.cat([getattr(rank[k], name) for rank in ranks])
            assert torch.equal(joined, getattr(whole, name)), name


def test_resume_at_every_step(folder: Path) -> None:
    want = list(loader(folder).batches(0, 8))  # two epochs and a bit
    for first in range(9):
        assert_same(loader(folder).batches(first, 8), want[first:])


def test_a_pass_can_be_left_and_another_begun_with_the_same_workers(folder: Path) -> None:
    want = list(loader(folder).batches(0, 8))
    two = loader(folder, workers=2)
    for first in (0, 5):
        batches = two.batches(first, 8)
        assert_same([next(batches)], want[first : first + 1])
        batches.close()
    assert_same(two.batches(2, 6), want[2:6])


def test_epochs_are_augmented_differently_and_torchs_generator_is_left_alone(folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches = list(loader(folder, flip=0.5).batches(0, 11))  # three epochs
    list(loader(folder, workers=1).batches(0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    keys = torch.cat([batch.keys for batch in batches if batch.keys is not None])
    assert len(keys.unique()) == len(keys) == 66


def test_flips_happen_at_the_probability_that_is_asked_for(folder: Path) -> None:
    plain = torch.cat([b.images for b in loader(folder, crop="center", flip=0).batches(0, 40)])
    always = torch.cat([b.images for b in loader(folder, crop="center", flip=1).batches(0, 40)])
    some = torch.cat([b.images for b in loader(folder, crop="center", flip=0.3).batches(0, 40)])
    assert torch.equal(always, plain.flip(-1))
    flipped = (some == always).flatten(1).all(1)
    assert ((some == plain).flatten(1).all(1) ^ flipped).all()
    assert abs(flipped.float().mean() - 0.3) < 4 * (0.21 / len(flipped)) ** 0.5


def test_deep_and_shallow_files_share_a_batch(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16), 51, np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(np.full((16, 16), 32768, np.uint16)).save(tmp_path / "16.png")
    (batch,) = eval_batches(open_source(tmp_path), (16, 16), 1, 2)
    assert torch.allclose(batch.images[:, 0, 0, 0], torch.tensor([32768 / 65535, 51 / 255]))


# --- bad files ------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> Path:
    """The same folder with three bad files in place of good ones."""
    for file in sorted(folder.rglob("*.png")):
        target = tmp_path / file.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    (tmp_path / "a" / "04.png").write_bytes(b"")
    (tmp_path / "b" / "07.png").write_bytes((tmp_path / "b" / "07.png").read_bytes()[:200])
    (tmp_path / "b" / "21.png").unlink()
    (tmp_path / "b" / "21.png").symlink_to(tmp_path / "nothing")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_file_costs_its_own_slot_and_nothing_else(folder: Path, damaged: Path, workers: int) -> None:
    source = open_source(damaged)
    bad = {i for i in range(N) if source.name(i) in ("a/04.png", "b/07.png", "b/21.png")}
    good = list(loader(folder).batches(0, 11))
    got = list(loader(damaged, workers).batches(0, 11))
    plan = list(Stream(N, 3, 6).steps(0, 11))
    n_faults = 0
    for whole, found, samples in zip(good, got, plan, strict=True):
        intact = torch.tensor([index not in bad for _, index in samples])
        assert torch.equal(found.images[intact], whole.images[intact])
        assert torch.equal(found.keys, whole.keys)  # type: ignore[arg-type]
        assert torch.equal(found.mask, whole.mask)  # type: ignore[arg-type]
        assert {(f.epoch, f.index) for f in found.faults} >= {s for s in samples if s[1] in bad}
        assert {f.index for f in found.faults} <= bad
        n_faults += len(found.faults)
    assert n_faults >= 9  # three files in each of three epochs
    reasons = {fault.index: fault.reason for batch in got for fault in batch.faults}
    assert sorted(reasons.values()) == ["empty file", "missing", "truncated or corrupt"]


def test_replacements_are_fixed_by_seed_epoch_and_sample(damaged: Path) -> None:
    want = list(loader(damaged).batches(0, 8))
    assert_same(loader(damaged, workers=2).batches(0, 8), want)
    for first in range(8):
        assert_same(loader(damaged).batches(first, 8), want[first:])


def test_a_slot_is_filled_by_the_first_readable_draw(tmp_path: Path) -> None:
    for k in range(8):
        Image.new("L", (9, 9), k).save(tmp_path / f"{k}.png")
    for k in (0, 1, 2, 4, 6):
        (tmp_path / f"{k}.png").write_bytes(b"")
    options = DataOptions(workers=0, crop="center")
    data = TrainLoader(open_source(tmp_path), options, 5, 1, image_size=(9, 9), in_chans=1)
    for step, ((epoch, index),) in enumerate(Stream(8, 5, 1).steps(0, 40)):
        (batch,) = data.batches(step, step + 1)
        draws = bits(sample_keys(5, epoch, torch.tensor([index])), 16, Purpose.REPLACEMENT)[0] % 8
        tried = [index, *draws.tolist()]
        first = next(k for k, i in enumerate(tried) if i in (3, 5, 7))
        assert batch.images.unique().tolist() == [tried[first]]
        assert [(fault.epoch, fault.index) for fault in batch.faults] == [(epoch, i) for i in tried[:first]]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_budget_counts_files_once_and_objects(damaged: Path, workers: int) -> None:
    data = loader(damaged, workers, bad_files_min=2, bad_files_max_share=0.0)
    batches = list(data.batches(0, 8))
    assert len(data.budget) == 0  # ranks are not counted by themselves
    objections = [data.budget.add(batch.faults) for batch in batches]
    assert re.match(r"3 of 22 files cannot be read .*the limit is 2", str(objections[-1]))
    assert "\n" not in str(objections[-1])
    data = loader(damaged, workers, bad_files_min=3)
    assert [data.budget.add(b.faults) for b in data.batches(0, 12)] == [None] * 12  # epochs do not add up


def test_the_budget_is_kept_over_a_resume(damaged: Path) -> None:
    first = loader(damaged)
    for batch in first.batches(0, 8):
        first.budget.add(batch.faults)
    rows = first.budget.rows()
    assert sorted(str(row["name"]) for row in rows) == ["a/04.png", "b/07.png", "b/21.png"]
    again = FaultBudget(open_source(damaged), DataOptions())
    again.restore(rows)
    assert again.rows() == rows
    assert (
        again.by_reason()
        == {"empty file": 1, "truncated or corrupt": 1, "missing": 1}
        == first.budget.by_reason()
    )
    assert FaultBudget(open_source(damaged), DataOptions()).limit == 10
    assert DataOptions().bad_files_limit(1_281_167) == 1281


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_of_bad_files_gets_one_line(tmp_path: Path, workers: int) -> None:
    for k in range(20):
        (tmp_path / f"{k}.jpg").write_text("no image")
    with pytest.raises(LaminaError, match="nearly no image can be read") as error:
        list(loader(tmp_path, workers).batches(0, 1))
    assert "\n" not in str(error.value)
    with pytest.raises(LaminaError, match="none of the 20 images can be read"):
        list(eval_batches(open_source(tmp_path), (16, 16), 3, 4, workers))


# --- processes ------------------------------------------------------------------------------------------

INTERRUPTED = """
import multiprocessing, os, signal, sys
from lamina.data.options import DataOptions
from lamina.data.loading.loader import TrainLoader
from lamina.data.open import open_source
seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append("INT"))
signal.signal(signal.SIGTERM, lambda *_: seen.append("TERM"))
loader = TrainLoader(open_source(sys.argv[1]), DataOptions(workers=2), 0, 4, image_size=(16, 16))
n = 0
for batch in loader.batches(0, 40):
    n += 1
    if n in (2, 4):
        os.killpg(0, signal.SIGINT if n == 2 else signal.SIGTERM)  # as a terminal or a scheduler does
print(n, seen)
try:
    for n, batch in enumerate(loader.batches(0, 400)):
        if n == 3:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid, signal.SIGKILL)
except ValueError as error:
    print(type(error).__name__, error)
"""


def test_signals_to_the_group_leave_the_workers_and_a_killed_worker_is_one_line(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(folder)],
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        check=False,
    )
    first, *rest = done.stdout.splitlines()
    assert first == "40 ['INT', 'TERM']", done.stderr
    assert len(rest) == 1
    assert re.match(r"LaminaError a data worker died \(process \d+, SIGKILL\): .*data.workers", rest[0])


# --- evaluation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_goes_through_all_images_in_order(damaged: Path, workers: int) -> None:
    source = open_source(damaged)
    batches = list(eval_batches(source, (16, 24), 1, 5, workers))
    index = torch.cat([batch.keys for batch in batches if batch.keys is not None]).tolist()
    faults = [fault.index for batch in batches for fault in batch.faults]
    assert sorted(index + faults) == list(range(N))
    assert index == sorted(index)
    assert len(faults) == 3
    labels = torch.cat([batch.labels for batch in batches if batch.labels is not None]).tolist()
    assert labels == [source.labels[i] for i in index]  # type: ignore[index]
    assert all(batch.images.shape[1:] == (1, 16, 24) for batch in batches)


def test_a_batch_of_bad_files_hands_its_faults_on(damaged: Path) -> None:
    order = ["b/21.png", "a/04.png", "a/00.png", "b/01.png", "b/07.png", "a/04.png"]
    batches = list(eval_batches(open_source([damaged / name for name in order]), (16, 16), 3, 2))
    assert [len(batch) for batch in batches] == [2]
    assert [fault.index for fault in batches[0].faults] == [0, 1, 4, 5]


# --- statistics -----------------------------------------------------------------------------------------


def test_channel_stats_are_those_of_a_random_pixel_of_a_random_image(folder: Path) -> None:
    source = open_source(folder)
    images = [source.read(i).double().flatten(1) / 255 for i in range(N)]
    mean = torch.stack([image.mean(1) for image in images]).mean(0)
    square = torch.stack([image.square().mean(1) for image in images]).mean(0)
    got_mean, got_std = channel_stats(source, 3)
    assert np.allclose(got_mean, mean, atol=1e-6)
    assert np.allclose(got_std, (square - mean**2).sqrt(), atol=1e-6)
    assert channel_stats(source, 3, most=5) == channel_stats(source, 3, most=5)
    assert channel_stats(source, 3, most=5) != channel_stats(source, 3, most=5, seed=1)


def test_channel_stats_of_a_flat_image(tmp_path: Path) -> None:
    Image.new("L", (5, 5), 51).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"")
    assert channel_stats(open_source(tmp_path), 1) == ((0.2,), (1.0,))
