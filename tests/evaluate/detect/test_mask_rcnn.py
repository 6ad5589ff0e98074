"""The pyramid's shapes and strides, anchors and pooling of regions in px, against torchvision and formulas."""

import math
from collections import OrderedDict

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign

from lamina.core.errors import LaminaError
from lamina.evaluate.detect.head_options import HeadOptions
from lamina.evaluate.detect.mask_rcnn import Anchors, Float32Output, region_pool
from lamina.evaluate.detect.simple_pyramid import SimplePyramid, scales_for


@pytest.mark.parametrize("patch", [4, 8, 14, 16])
@pytest.mark.parametrize("grid", [(8, 12), (7, 5)])
def test_maps_have_the_sizes_and_strides_of_vitdet(patch, grid):
    pyramid = SimplePyramid(16, patch, channels=8)
    maps = pyramid(torch.randn(2, 16, *grid))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert pyramid.strides == tuple(patch * factor for factor in (1 / 4, 1 / 2, 1, 2, 4))
    for found, stride in zip(maps.values(), pyramid.strides, strict=True):
        assert found.shape == (2, 8, *(math.ceil(side * patch / stride) for side in grid))
    if patch == 16:
        assert pyramid.strides == (4, 8, 16, 32, 64)
    assert torch.equal(maps["pool"], maps["3"][..., ::2, ::2])


def test_every_map_looks_at_the_place_that_its_stride_says():
    """A value depends on the patches under it and the next ones: no map is shifted or mirrored."""
    pyramid = SimplePyramid(16, 16, channels=8)
    x = torch.randn(1, 16, 16, 16, requires_grad=True)
    for found, stride in zip(pyramid(x).values(), pyramid.strides, strict=True):
        i, j = found.shape[-2] * 3 // 4, found.shape[-1] // 4
        (seen,) = torch.autograd.grad(found[0, :, i, j].square().sum(), x, retain_graph=True)
        rows, columns = seen.abs().sum((0, 1)).nonzero(as_tuple=True)
        for places, at in ((rows, i), (columns, j)):
            centre, reach = (at + 0.5) * stride / 16, max(1.0, 1.5 * stride / 16 + 0.5)
            if stride == 64:  # every other value of the map before
                centre, reach = (2 * at + 0.5) * 2, 3.5
            assert abs(float(places.float().mean()) + 0.5 - centre) <= 0.75 * max(1, stride / 16)
            assert float((places + 0.5 - centre).abs().max()) <= reach


def test_some_levels_or_none():
    assert SimplePyramid(16, 8, 8, (2.0, 1.0, 0.5)).strides == (4, 8, 16, 32)
    assert [scales_for(patch)[0] for patch in (2, 4, 8, 14, 16, 32)] == [0.5, 1, 2, 2, 4, 4]
    for scales in ((), (8.0, 4.0), (4.0, 1.0), (1.0, 2.0)):
        with pytest.raises(LaminaError, match="scales"):
            SimplePyramid(16, 8, 8, scales)
    with pytest.raises(LaminaError, match="width 18"):
        SimplePyramid(18, 8)


def images_of(size: tuple[int, int]) -> ImageList:
    return ImageList(torch.zeros(2, 3, *size), [size] * 2)


def test_anchors_are_torchvisions_where_sides_halve_evenly():
    strides, sides = (4.0, 8.0, 16.0), (32.0, 64.0, 128.0)
    maps = [torch.zeros(2, 1, int(64 / s), int(96 / s)) for s in strides]
    expected = AnchorGenerator(tuple((s,) for s in sides), ((0.5, 1.0, 2.0),) * 3)(images_of((64, 96)), maps)
    found = Anchors(strides, sides, (0.5, 1.0, 2.0))(images_of((64, 96)), maps)
    assert len(found) == 2
    assert torch.equal(found[1], expected[1])


def test_anchors_stand_at_their_strides_where_sides_do_not_halve():
    """112 px in patches of 14: maps of 32, 16, 8, 4 and 2 values, strides of 3.5 px and more."""
    strides = (3.5, 7.0, 14.0, 28.0, 56.0)
    maps = [torch.zeros(2, 1, math.ceil(98 / s), math.ceil(112 / s), dtype=torch.bfloat16) for s in strides]
    (found, _) = Anchors(strides, [4 * s for s in strides], (1.0,))(images_of((98, 112)), maps)
    assert found.dtype == torch.float32
    start = 0
    for each, stride in zip(maps, strides, strict=True):
        rows, columns = each.shape[-2:]
        own = found[start : start + rows * columns].reshape(rows, columns, 4)
        start += rows * columns
        assert torch.equal((own[..., 0] + own[..., 2])[0] / 2, torch.arange(columns) * stride)
        assert torch.equal((own[..., 1] + own[..., 3])[:, 0] / 2, torch.arange(rows) * stride)
        assert abs(float(own[0, 0, 2] - own[0, 0, 0]) - 4 * stride) <= 1
    assert start == len(found)


def ramps(size: tuple[int, int], strides) -> OrderedDict[str, torch.Tensor]:
    """Maps whose values are px: how far right, how far down, and which map it is."""
    maps = OrderedDict()
    for i, stride in enumerate(strides):
        y = torch.arange(math.ceil(size[0] / stride)) * stride
        x = torch.arange(math.ceil(size[1] / stride)) * stride
        grid = torch.meshgrid(x.float(), y.float(), indexing="xy")
        maps[str(i)] = torch.stack([*grid, torch.full_like(grid[0], float(i))])[None]
    return maps


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_regions_are_pooled_where_they_are_and_from_the_map_of_their_size(patch):
    """Lin et al., equation 1: a box of 224 px belongs to stride 16, one of half the size to half the stride."""
    size, strides = (64 * patch, 64 * patch), [patch * f for f in (0.25, 0.5, 1.0, 2.0)]
    names = [str(i) for i in range(4)]
    pool = region_pool(names, strides, patch, 7)
    sides = [patch * f for f in (3.0, 6.9, 7.1, 13.9, 14.1, 27.9, 28.1, 40.0)]
    boxes = torch.tensor([[8.0 * patch, 6.0 * patch, 8 * patch + s, 6 * patch + s] for s in sides])
    found = pool(ramps(size, strides), [boxes], [size])
    assert found.shape == (8, 3, 7, 7)
    assert found[:, 2].flatten(1).mean(1).round().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    middle = torch.tensor([[8.0 * patch + s / 2, 6.0 * patch + s / 2] for s in sides])
    torch.testing.assert_close(found[:, :2].mean((2, 3)), middle, rtol=0, atol=0.05 * patch)
    if patch != 14:
        theirs = MultiScaleRoIAlign(names, 7, 0, canonical_scale=14 * patch, canonical_level=4)
        if patch == 16:
            assert torch.equal(found, theirs(ramps(size, strides), [boxes], [size]))


def test_heads_speak_in_single_precision():
    head = Float32Output(torch.nn.Linear(4, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.nn.Linear(4, 2)(torch.ones(1, 4)).dtype == torch.bfloat16
        assert head(torch.ones(1, 4)).dtype == torch.float32
    lists = Float32Output(torch.nn.Identity())(([torch.ones(1, dtype=torch.half)], [torch.ones(1)]))
    assert [each.dtype for part in lists for each in part] == [torch.float32] * 2


def test_options_that_make_no_sense():
    for wrong in (
        {"channels": 0},
        {"region_samples": 0},
        {"box_convs": -1},
        {"anchor_strides": math.nan},
        {"anchor_ratios": (math.inf,)},
        {"anchor_ratios": ()},
        {"anchor_iou": 0.2},
        {"scales": (0.0, -1.0)},
        {"scales": (3.0,)},
        {"least_score": 5.0},
        {"least_score": math.nan},
        {"nms_iou": -1.0},
        {"nms_iou": math.nan},
    ):
        with pytest.raises(LaminaError, match=next(iter(wrong))):
            HeadOptions(**wrong)
    assert HeadOptions(box_convs=0).box_convs == 0
