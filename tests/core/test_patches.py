"""Patches, choices of them and positions, against written-out definitions."""

import math

import pytest
import torch

from lamina.core.batch import Batch, unit_float
from lamina.core.errors import LaminaError
from lamina.core.patches import patchify, sincos_2d, split_indices, take, unpatchify


def test_patchify_cuts_row_by_row_with_channels_last():
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = patchify(images, (2, 3))
    assert patches.shape == (2, 4, 18)
    expected = [images[1, c, 2 + y, 3 + x].item() for y in range(2) for x in range(3) for c in range(3)]
    assert patches[1, 3].tolist() == expected
    assert torch.equal(unpatchify(patches, (2, 3), (2, 2)), images)


def test_patchify_refuses_what_it_cannot_cut():
    with pytest.raises(LaminaError, match="cannot be cut"):
        patchify(torch.zeros(1, 3, 5, 4), (2, 2))


def test_split_indices_are_ascending_and_complete():
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    visible, hidden = split_indices(mask, 2)
    assert visible.tolist() == [[1, 3], [0, 1]]
    assert hidden.tolist() == [[0, 2], [2, 3]]
    rows = torch.rand(2, 4, 3)
    assert torch.equal(take(rows, hidden)[0], rows[0, [0, 2]])
    assert torch.equal(take(rows[..., 0], visible)[1], rows[1, [0, 1], 0])


@pytest.mark.parametrize("grid", [(4, 4), (3, 5)])
def test_positions_are_maes_formula(grid):
    width = 16
    table = sincos_2d(width, grid)
    for row in range(grid[0]):
        for column in range(grid[1]):
            expected = []
            for coordinate in (column, row):
                angles = [coordinate / 10000 ** (i / (width / 4)) for i in range(width // 4)]
                expected += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
            torch.testing.assert_close(table[row * grid[1] + column], torch.tensor(expected))
    with pytest.raises(LaminaError, match="4 divides"):
        sincos_2d(18, grid)


def test_unit_float_keeps_values():
    assert unit_float(
        torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
    ).flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    wide = torch.tensor([[[[0, 1000, 65535]]]], dtype=torch.uint16)
    assert unit_float(wide).flatten().tolist() == pytest.approx([0, 1000 / 65535, 1])
    double = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    assert unit_float(double) is double
    with pytest.raises(LaminaError, match="int64"):
        unit_float(torch.zeros(1, 1, 1, 1, dtype=torch.int64))


def test_micro_batches_join_to_the_batch():
    batch = Batch(torch.rand(5, 3, 4, 4), torch.arange(5), torch.rand(5, 4) > 0.5)
    parts = list(batch.split(2))
    assert [len(p) for p in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([p.mask for p in parts]), batch.mask)
    assert parts[0].labels is None
