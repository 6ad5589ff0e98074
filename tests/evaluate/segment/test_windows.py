"""Windows side by side give a whole image its classes, whatever its size."""

import pytest
import torch
import torch.nn.functional as F

from lamina.core.errors import LaminaError
from lamina.data.augment.crops import resize
from lamina.evaluate.segment.window_options import SegmentWindows
from lamina.evaluate.segment.windows import slide, starts

CPU = torch.device("cpu")
FILL = (0.5, 0.25, 0.0)


def of_pixels(images):
    """Logits that depend on a pixel alone: its first two channels and their difference."""
    images = images.float()
    return torch.stack((images[:, 0], images[:, 1], images[:, 0] - images[:, 1]), dim=1)


def of_windows(images):
    """Logits that differ from window to window: its mean, everywhere."""
    return images.float().mean((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, 1, *images.shape[-2:])


def windows(size, base, stride, **more):
    return SegmentWindows(size=size, base=base, stride=stride, **more).resolved((8, 8), (4, 4))


def image(height, width, seed=0):
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("length", "window", "stride", "expected"),
    [
        (512, 512, 341, [0]),
        (683, 512, 341, [0, 171]),
        (853, 512, 341, [0, 341]),
        (854, 512, 341, [0, 341, 342]),
        (300, 512, 341, [0]),
        (10, 4, 2, [0, 2, 4, 6]),
    ],
)
def test_windows_end_at_the_edge(length, window, stride, expected):
    """mmsegmentation's grid, written out for a few sides."""
    assert starts(length, window, stride) == expected
    count = max(length - window + stride - 1, 0) // stride + 1
    theirs = [max(min(i * stride + window, length) - window, 0) for i in range(count)]
    assert starts(length, window, stride) == theirs


@pytest.mark.parametrize("size", [(20, 28), (20, 20), (8, 30), (5, 7)])
@pytest.mark.parametrize("at_once", [1, 8])
def test_what_depends_on_pixels_alone_is_that_of_the_whole_image(size, at_once):
    """Also of images smaller than a window."""
    found = slide(of_pixels, image(*size), windows((12, 8), min(size), (5, 5), batch_size=at_once), FILL, CPU)
    torch.testing.assert_close(found, of_pixels(image(*size)[None])[0])


def test_logits_are_averaged_where_windows_overlap():
    picture = image(8, 14)
    found = slide(of_windows, picture, windows((8, 8), 8, (8, 4)), FILL, CPU)[0]
    parts = [picture[:, :, left : left + 8].mean() for left in (0, 4, 6)]
    expected = [(0,), (0,), (0,), (0,), (0, 1), (0, 1), *[(0, 1, 2)] * 2, *[(1, 2)] * 4, (2,), (2,)]
    for column, which in enumerate(expected):
        torch.testing.assert_close(found[:, column], torch.stack([parts[i] for i in which]).mean().expand(8))


def test_the_short_side_is_resized_and_logits_come_back():
    picture = image(20, 30)
    found = slide(of_pixels, picture, windows((12, 12), 12, (8, 8)), FILL, CPU)
    small = of_pixels(resize(picture, (12, 18))[None])
    torch.testing.assert_close(found, F.interpolate(small, (20, 30), mode="bilinear")[0])
    assert found.shape == (3, 20, 30)


def test_a_strip_does_not_become_endless():
    seen = []

    def watch(images):
        seen.append(images.shape)
        return of_pixels(images)

    found = slide(watch, image(4, 400), windows((16, 16), 16, (16, 16), max_side=64), FILL, CPU)
    assert found.shape == (3, 4, 400)
    assert sum(shape[0] for shape in seen) == 4  # 64 px, not 1600


def test_beyond_a_small_image_there_is_the_fill():
    def corner(images):
        return images[:, :, -1:, -1:].expand(-1, -1, *images.shape[-2:])

    found = slide(corner, image(4, 6), windows((8, 8), 4, (8, 8)), FILL, CPU)
    torch.testing.assert_close(found[:, 0, 0], torch.tensor(FILL))


def test_sizes_follow_from_the_encoder():
    own = SegmentWindows().resolved((112, 160), (8, 8))
    assert (own.pixels, own.base, own.steps) == ((112, 160), 112, (74, 106))
    published = SegmentWindows(size=(512, 512), base=512, stride=(341, 341))
    assert published.resolved((224, 224), (16, 16)) == published
    assert published.resolved((224, 224), (14, 14)).pixels == (518, 518)
    assert own.training().size == (112, 160)
    for wrong in (
        {"size": (0,)},
        {"stride": (1, 2, 3)},
        {"base": 0},
        {"batch_size": 0},
        {"scale": (2.0, 0.5)},
    ):
        with pytest.raises(LaminaError, match=next(iter(wrong))):
            SegmentWindows(**wrong)
