"""Windows of images, classes of pixels and objects stay together; batches are a function of seed and step."""

from dataclasses import dataclass, field

import pytest
import torch

from lamina.core.batch import Batch, Objects
from lamina.core.errors import LaminaError
from lamina.data.decode.unreadable import Reason, Unreadable
from lamina.data.dense.crops import N_DRAWS, Window, boxes_around, draw_window
from lamina.data.dense.loader import DenseLoader, dense_images
from lamina.data.dense.sources import IGNORE, MapSource, ObjectSource
from lamina.data.dense.window_options import WindowOptions
from lamina.data.options import AS_STORED, DataOptions
from lamina.data.sources import ArraySource

SIZE = (24, 36)
DATA = DataOptions(workers=0, prefetch_batches=1)


def pictures(n: int = 6) -> ArraySource:
    """Pixels say which class they are of: 40 times it, in each of three channels."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 4, (n, 3, 4), generator=generator, dtype=torch.uint8)
    maps = coarse.repeat_interleave(8, 1).repeat_interleave(9, 2)
    return ArraySource((40 * maps)[:, None].expand(-1, 3, -1, -1).contiguous(), [str(i) for i in range(n)])


@dataclass
class Maps(MapSource):
    images: ArraySource = field(default_factory=pictures)
    classes: tuple[str, ...] = ("a", "b", "c", "d")
    broken: tuple[int, ...] = ()

    def read_map(self, i, how=AS_STORED):
        if i in self.broken:
            raise Unreadable(Reason.LABELS, "out of range")
        return self.images.images[i, 0] // 40


@dataclass
class Things(ObjectSource):
    """Two boxes in each image, of which the pixels have a colour of their own."""

    images: ArraySource = field(default_factory=pictures)
    classes: tuple[str, ...] = ("first", "second")

    def read_objects(self, i, how=AS_STORED):
        masks = torch.zeros(2, *SIZE, dtype=torch.bool)
        masks[0, 2:10, 3:12] = True
        masks[1, 12:20, 20 + i : 30 + i] = True
        return Objects(boxes_around(masks), torch.tensor([0, 1]), masks, torch.zeros(2, dtype=torch.bool))


@pytest.mark.parametrize("flip", [False, True])
def test_a_window_without_scaling_is_a_crop(flip):
    image, classes = pictures().images[0], Maps().read_map(0)
    window = Window(SIZE, 5, 7, (10, 12), flip)
    found = window.image(image), window.map(classes)
    expected = image[:, 5:15, 7:19], classes[5:15, 7:19]
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got, want.flip(-1) if flip else want)
    things = Things().read_objects(0)
    shown = window.objects(things)
    mask = things.masks[:1, 5:15, 7:19]
    mask = mask.flip(-1) if flip else mask
    assert shown.labels.tolist() == [0]  # the second lies outside
    assert torch.equal(shown.masks, mask)
    assert shown.boxes.tolist() == [[7.0, 0.0, 12.0, 5.0] if flip else [0.0, 0.0, 5.0, 5.0]]


def test_beyond_the_image_there_is_nothing_to_learn():
    image, classes = pictures().images[0], Maps().read_map(0)
    window = Window(SIZE, 0, 0, (30, 40))
    assert torch.equal(window.map(classes)[24:], torch.full((6, 40), IGNORE, dtype=torch.uint8))
    assert (window.image(image, (0.5, 0.2, 0.0))[:, 29, 39] == torch.tensor([128, 51, 0])).all()
    assert not window.objects(Things().read_objects(0)).masks[:, 24:].any()
    assert (
        window.image(image.float() / 255, (0.5, 0.2, 0.1))[:, 29, 39] == torch.tensor([0.5, 0.2, 0.1])
    ).all()


@pytest.mark.parametrize("resized", [(48, 72), (12, 18), (31, 50)])
def test_classes_stay_on_their_pixels_when_resized(resized):
    """Away from borders between classes the image says the class of its pixel."""
    image, classes = pictures().images[1], Maps().read_map(1)
    window = Window(resized, 0, 0, resized)
    says, known = window.image(image)[0].float() / 40, window.map(classes).float()
    inner = (says - says.round()).abs() < 0.02
    assert inner.float().mean() > 0.3
    assert (says.round() == known)[inner].float().mean() > 0.97
    assert set(known.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


def test_scales_and_places_are_drawn_over_their_whole_range():
    options = WindowOptions((16, 16), (0.5, 2.0), base=24, flip=0.5)
    generator = torch.Generator().manual_seed(0)
    windows = [
        draw_window(*SIZE, options, torch.rand(N_DRAWS, generator=generator).tolist()) for _ in range(600)
    ]
    shorts = torch.tensor([min(w.resized) for w in windows]).float()
    assert (shorts.min(), shorts.max()) == (12, 48)
    assert abs(float(shorts.mean()) - 30) < 1.5
    assert {w.flip for w in windows} == {True, False}
    for w in windows:
        assert abs(w.resized[1] - 1.5 * w.resized[0]) <= 1.25  # rounded apart
        assert 0 <= w.top <= max(0, w.resized[0] - 16)
        assert 0 <= w.left <= max(0, w.resized[1] - 16)
    long = draw_window(*SIZE, WindowOptions((64, 64), (1.0, 1.0), base=64, side="long"), [0.0] * N_DRAWS)
    assert max(long.resized) == 64  # the whole image fits


def test_no_class_covers_too_much_where_another_place_is_found():
    classes = torch.zeros(40, 40, dtype=torch.uint8)
    classes[:, 30:] = 1
    limited = WindowOptions((20, 20), (1.0, 1.0), base=40, max_class_share=0.75)
    free = WindowOptions((20, 20), (1.0, 1.0), base=40)
    generator = torch.Generator().manual_seed(0)
    shares = {True: [], False: []}
    for _ in range(200):
        draws = torch.rand(N_DRAWS, generator=generator).tolist()
        for options in (limited, free):
            part = draw_window(40, 40, options, draws, classes).map(classes)
            shares[options is limited].append(float((part == 0).float().mean()))
    assert sum(s > 0.75 for s in shares[True]) < 10 < sum(s > 0.75 for s in shares[False])


def collect(source, workers=0, seed=3, first=0, last=4) -> list[Batch]:
    options = DataOptions(workers=workers, prefetch_batches=1, jitter=(0.4, 0.4, 0.4, 0.0))
    loader = DenseLoader(
        source, options, WindowOptions((16, 16), base=24), seed, batch_size=4, fill=(0.5,) * 3
    )
    return list(loader.batches(first, last))


def same(a: Batch, b: Batch) -> bool:
    pairs = [(a.images, b.images), (a.keys, b.keys)]
    pairs += [(a.labels, b.labels)] if a.labels is not None else []
    for x, y in zip(a.objects or (), b.objects or (), strict=True):
        pairs += list(zip(x, y, strict=True))
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("kind", [Maps, Things])
def test_a_source_is_told_which_images_of_a_batch_come_next(kind, monkeypatch):
    told: list[int] = []
    read: list[int] = []
    inspect = ArraySource.inspect
    monkeypatch.setattr(ArraySource, "read_ahead", lambda self, indices, how: told.extend(indices))
    monkeypatch.setattr(ArraySource, "inspect", lambda self, i, how: read.append(i) or inspect(self, i, how))
    collect(kind(), last=1)
    assert told == read
    assert len(read) == 4


@pytest.mark.parametrize("kind", [Maps, Things])
def test_batches_are_a_function_of_seed_and_step(kind):
    whole = collect(kind())
    assert all(same(a, b) for a, b in zip(collect(kind(), workers=2), whole, strict=True))
    assert all(same(a, b) for a, b in zip(collect(kind(), first=2), whole[2:], strict=True))
    assert not same(collect(kind(), seed=4)[0], whole[0])
    assert whole[0].images.shape == (4, 3, 16, 16)
    parts = list(whole[0].split(3))
    assert [len(part) for part in parts] == [3, 1]
    if kind is Things:
        assert [len(part.objects) for part in parts] == [3, 1]
        assert whole[0].to("cpu").objects[0].masks.dtype == torch.bool
    else:
        assert whole[0].labels.shape == (4, 16, 16)


def test_samples_without_readable_labels_are_replaced_and_named():
    batches = collect(Maps(broken=(2,)))
    assert {fault.index for batch in batches for fault in batch.faults} == {2}
    assert {fault.reason for batch in batches for fault in batch.faults} == {
        "labels that do not fit the image"
    }
    assert all(len(batch) == 4 for batch in batches)
    with pytest.raises(LaminaError, match=r"nearly no image can be read, e\.g\. .*labels"):
        collect(Maps(broken=tuple(range(6))))


def test_evaluation_reads_each_image_at_its_size():
    batches = list(dense_images(Maps(broken=(1,)), 3, DATA))
    assert [len(batch) for batch in batches] == [1, 0, 1, 1, 1, 1]
    assert batches[0].labels.shape == (1, *SIZE)
    assert batches[1].faults[0].index == 1
    assert len(next(dense_images(Things(), 3, DATA)).objects[0].labels) == 2
    with pytest.raises(LaminaError, match="none of the 6 images"):
        list(dense_images(Maps(broken=tuple(range(6))), 3, DATA))


def test_labels_of_another_size_do_not_fit():
    class Small(Maps):
        def read_map(self, i, how=AS_STORED):
            return super().read_map(i)[:10]

    with pytest.raises(LaminaError, match="labels that do not fit"):
        list(dense_images(Small(), 3, DATA))


def test_boxes_are_tight():
    masks = torch.zeros(3, 8, 9, dtype=torch.bool)
    masks[0, 1:4, 2:7] = True
    masks[1, 7, 8] = True
    assert boxes_around(masks).tolist() == [[2, 1, 7, 4], [8, 7, 9, 8], [0, 0, 0, 0]]
    assert boxes_around(masks[:0]).shape == (0, 4)
