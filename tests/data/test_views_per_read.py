"""Several crops of one image in a batch: those that separate reads give, in another order; and how images are
decoded for them."""

from __future__ import annotations

import io
import math
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import sklearn.datasets
import torch
from PIL import Image

from helpers.runs import toy_recipe
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.augment.crops import CenterCrop, RandomResizedCrop
from lamina.data.decode.decode import Decoded, decode
from lamina.data.loading.dataset import TrainReader
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.loading.sampler import Stream
from lamina.data.open import open_source
from lamina.data.options import AS_STORED, DataOptions, Decoding
from lamina.data.sources import ArraySource, Source
from lamina.interop.complete import complete
from lamina.masking.random import RandomMasking
from lamina.runs.data_facts import DataFacts
from lamina.runs.run import Run

N, VIEWS = 10, 3


class Counting(ArraySource):
    """Ten images of noise; counts how often each is read, and cannot read one."""

    def __init__(self, bad: int | None = None) -> None:
        images = torch.randint(0, 256, (N, 3, 40, 48), dtype=torch.uint8, generator=torch.Generator())
        super().__init__(images, [str(i) for i in range(N)], [i % 2 for i in range(N)], ("a", "b"))
        self.reads: Counter[int] = Counter()
        self.bad = bad

    def inspect(self, i: int, how: Decoding = AS_STORED) -> Decoded:
        self.reads[i] += 1
        return decode(io.BytesIO(b"no image"), how) if i == self.bad else super().inspect(i, how)


def loader(source: Source, views: int, rank: int = 0, world: int = 1, batch: int = 12) -> TrainLoader:
    options = DataOptions(workers=0, views_per_read=views, jitter=(0.4, 0.4, 0.4, 0.0))
    masking = RandomMasking(0.75)
    return TrainLoader(
        source, options, 7, batch, rank, world, image_size=(32, 32), masking=masking, grid=(4, 4)
    )


def rows(batches: list[Batch]) -> dict[str, torch.Tensor]:
    return {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("images", "keys", "mask", "labels")
    }


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_crops_and_masks_are_those_of_separate_reads() -> None:
    source = Counting()
    found = rows(list(loader(source, VIEWS).batches(0, 5)))  # 60 crops: two passes of 30
    assert source.reads == dict.fromkeys(range(N), 2)
    samples = [s for step in Stream(N, 7, 12, views=VIEWS).steps(0, 5) for s in step]
    assert sorted(samples) == [(epoch, i) for epoch in range(2 * VIEWS) for i in range(N)]
    assert all(samples[k][1] == samples[k + 1][1] == samples[k + 2][1] for k in range(0, 60, VIEWS))
    reader = TrainReader(
        Counting(),
        Decoding(3),
        7,
        RandomResizedCrop((32, 32)),
        0.5,
        RandomMasking(0.75),
        (4, 4),
        strengths=(0.4, 0.4, 0.4, 0.0),
    )
    singly = [reader.__getitems__([sample]) for sample in samples]
    assert equal(found, rows([batch for batch in singly if isinstance(batch, Batch)]))
    assert len(found["keys"].unique()) == 60


def test_one_view_is_what_there_was_before() -> None:
    assert list(Stream(N, 7, 12, views=1).steps(0, 9)) == list(Stream(N, 7, 12).steps(0, 9))


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_and_a_resume_change_nothing(world: int) -> None:
    whole = list(loader(Counting(), VIEWS).batches(0, 6))
    later = list(loader(Counting(), VIEWS).batches(4, 6))
    assert equal(rows(whole[4:]), rows(later))
    parts = [list(loader(Counting(), VIEWS, rank, world).batches(0, 6)) for rank in range(world)]
    for step, batch in enumerate(whole):
        assert equal(rows([batch]), rows([part[step] for part in parts]))


def test_all_crops_of_a_bad_file_are_of_one_other_image() -> None:
    source = Counting(bad=4)
    batches = list(loader(source, VIEWS).batches(0, 5))
    faults = [fault for batch in batches for fault in batch.faults]
    assert [(fault.epoch, fault.index) for fault in faults] == [(0, 4), (VIEWS, 4)]
    assert sum(source.reads.values()) == 2 * N + 2


@pytest.mark.parametrize(("batch", "world", "views"), [(10, 1, 3), (12, 2, 4), (9, 2, 3)])
def test_a_batch_that_cannot_be_divided_is_refused(batch: int, world: int, views: int) -> None:
    with pytest.raises(LaminaError, match="must be a multiple of"):
        Stream(N, 0, batch, 0, world, views)


def test_views_per_read_does_not_go_with_a_second_view() -> None:
    with pytest.raises(LaminaError, match="of different images"):
        DataOptions(views_per_read=2, second_view="cmae")


# --- how images are decoded -------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two of 640 x 427 px."""
    for name in ("china.jpg", "flower.jpg"):
        with Image.open(Path(sklearn.datasets.__file__).parent / "images" / name) as im:
            im.save(tmp_path / name, quality=90)
    return tmp_path


def test_a_new_run_decodes_what_its_crops_need_and_an_old_one_everything(photographs: Path) -> None:
    source = open_source(str(photographs))
    fresh = complete(toy_recipe(), source).recipe
    assert fresh.data.jpeg_decoding == "reduced"
    run = Run(photographs / "run")
    run.start(fresh, DataFacts(str(photographs), 2, "0" * 64), None)
    assert complete(toy_recipe(), source, own=run.recipe()).recipe.data == fresh.data
    lines = run.recipe_file.read_text(encoding="utf-8").splitlines()[1:]  # without the digest of the rest
    old = [line for line in lines if "jpeg_decoding" not in line]
    assert len(old) == len(lines) - 1
    run.recipe_file.write_text("\n".join(old), encoding="utf-8")
    resumed = complete(toy_recipe(), source, own=run.recipe()).recipe
    assert resumed.data.jpeg_decoding == "full"

    def crops(decoding: Literal["full", "reduced"] | None) -> torch.Tensor:
        options = DataOptions(workers=0, jpeg_decoding=decoding, flip=0.0)
        steps = TrainLoader(source, options, 3, 2, image_size=(64, 64))
        return torch.cat([batch.images for batch in steps.batches(0, 8)])

    crop, expected = RandomResizedCrop((64, 64)), []
    for epoch, index in [sample for step in Stream(2, 3, 2).steps(0, 8) for sample in step]:
        with Image.open(photographs / source.name(index)) as im:
            pixels = torch.from_numpy(np.array(im)).permute(2, 0, 1)
        key = sample_keys(3, epoch, torch.tensor([index]))
        expected.append(crop(pixels, uniform(key, crop.n_draws, Purpose.CROP)[0].tolist()))
    assert torch.equal(crops(resumed.data.jpeg_decoding), torch.stack(expected))
    assert psnr(crops(fresh.data.jpeg_decoding), torch.stack(expected)) > 30


def test_evaluations_decode_what_the_centre_crop_needs(photographs: Path) -> None:
    source = open_source(str(photographs))
    whole, reduced = (
        next(eval_batches(source, (64, 64), 3, 2, options=DataOptions(jpeg_decoding=decoding))).images
        for decoding in ("full", "reduced")
    )
    assert psnr(whole, reduced) > 30


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB; images that are the same fail here."""
    error = (a.double() - b.double()).square().mean().item()
    assert error > 0
    return 10 * math.log10(255**2 / error)


@pytest.mark.parametrize("size", [(427, 640), (64, 64)])
def test_images_of_a_batch_do_not_share_memory(photographs: Path, size: tuple[int, int]) -> None:
    source = open_source(str(photographs))
    read = [
        torch.from_numpy(np.array(Image.open(photographs / source.name(i)))).permute(2, 0, 1) for i in (0, 1)
    ]
    crop = CenterCrop(size, 1.0)  # of the first size, it gives the image itself
    options = DataOptions(workers=0, crop="center", eval_crop_share=1.0, flip=0.0)
    wanted = torch.stack([crop(image) for image in read])
    assert torch.equal(next(eval_batches(source, size, 3, 2, options=options)).images, wanted)
    for batch in TrainLoader(source, options, 0, 2, image_size=size).batches(0, 3):
        order = [image.tolist() == wanted[0].tolist() for image in batch.images]
        assert sorted(order) == [False, True]
        assert torch.equal(batch.images, wanted if order[0] else wanted.flip(0))
