"""Masks hide what they promise, in every row, and depend on the keys alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lamina.errors import LaminaError
from lamina.masking import BlockMasking, MaskingOptions, RandomMasking, build_masking
from lamina.rng import sample_keys


@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.05, 0.95))
@settings(max_examples=60, deadline=None)
def test_random_hides_the_same_count_in_each_row(rows, columns, ratio):
    n = rows * columns
    masking = RandomMasking(ratio)
    try:
        visible = masking.n_visible((rows, columns))
    except LaminaError:
        assert int(n * (1 - ratio) + 1e-6) in (0, n)
        return
    mask = masking(sample_keys(0, 0, torch.arange(5)), (rows, columns))
    assert mask.shape == (5, n)
    assert (~mask).sum(1).tolist() == [visible] * 5
    assert n - visible == pytest.approx(n * ratio, abs=1)


@pytest.mark.parametrize(
    ("n", "ratio", "visible"),
    [((14, 14), 0.75, 49), ((14, 14), 0.6, 78), ((10, 10), 0.9, 10), ((4, 4), 0.75, 4)],
)
def test_published_counts(n, ratio, visible):
    assert RandomMasking(ratio).n_visible(n) == visible


def test_random_is_uniform_over_patches_and_pairs():
    masks = RandomMasking(0.5)(sample_keys(7, 0, torch.arange(4000)), (4, 4)).numpy()
    counts = masks.sum(0)
    # Each patch is hidden with probability 1/2; a pair with 8/16 * 7/15.
    assert np.abs(counts / 4000 - 0.5).max() < 4 * math.sqrt(0.25 / 4000)
    both = (masks[:, 0] & masks[:, 5]).mean()
    assert abs(both - 7 / 30) < 4 * math.sqrt(0.25 / 4000)
    assert stats.chisquare(counts).pvalue > 1e-4


def test_simmims_units():
    masking = BlockMasking(0.6, unit=2)
    assert masking.n_visible((14, 14)) == 196 - 120  # 30 of 49 units of 4 patches
    mask = masking(sample_keys(0, 0, torch.arange(6)), (14, 14)).reshape(6, 14, 14)
    units = mask.reshape(6, 7, 2, 7, 2).permute(0, 1, 3, 2, 4).flatten(3)
    assert (units.all(-1) | (~units).all(-1)).all()
    assert units.all(-1).flatten(1).sum(1).tolist() == [30] * 6


def test_rectangles():
    mask = BlockMasking(0.5, unit=2)(sample_keys(0, 0, torch.arange(3)), (4, 8))
    assert mask.sum(1).tolist() == [16] * 3


def test_a_row_does_not_depend_on_its_neighbours():
    keys = sample_keys(0, 3, torch.arange(10))
    for masking in (RandomMasking(0.75), BlockMasking(0.6, 2)):
        together = masking(keys, (8, 8))
        assert torch.equal(together[4:6], masking(keys[4:6], (8, 8)))


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: RandomMasking(1.0), "between 0 and 1"),
        (lambda: RandomMasking(0.75).n_visible((1, 3)), "leaves 0 visible"),
        (lambda: BlockMasking(0.6, 2).n_visible((7, 8)), "cannot be tiled"),
        (lambda: build_masking(MaskingOptions(kind="blocks", unit_px=20), (16, 16)), "not a multiple"),
    ],
)
def test_refuses_with_a_sentence(act, says):
    with pytest.raises(LaminaError, match=says):
        act()
