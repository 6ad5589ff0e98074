"""Masks hide what they promise, in every row, and depend on the keys alone."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lamina.core.errors import LaminaError
from lamina.core.rng import sample_keys
from lamina.masking.attention_guided import AttentionGuidedMasking
from lamina.masking.blockwise import BlockwiseMasking
from lamina.masking.build import build_masking
from lamina.masking.inverse_block import InverseMasking
from lamina.masking.options import MaskingOptions
from lamina.masking.random import RandomMasking
from lamina.masking.units import BlockMasking


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
    scores = torch.rand(10, 64, generator=torch.Generator().manual_seed(0))
    for masking in (
        RandomMasking(0.75),
        BlockMasking(0.6, 2),
        BlockwiseMasking(0.4),
        InverseMasking(0.6),
        AttentionGuidedMasking(0.75),
    ):
        together = masking(keys, (8, 8), scores)
        assert torch.equal(together[4:6], masking(keys[4:6], (8, 8), scores[4:6]))
        assert len({tuple(row.tolist()) for row in together}) >= 9


def test_scored_draws_as_multinomial_without_replacement():
    """Inclusion probabilities of single patches and of a pair against torch's own sampler."""
    n = 20000
    weights = torch.tensor([0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.05, 0.05, 0.0, 0.0])
    visible = ~AttentionGuidedMasking(0.75)(
        sample_keys(3, 0, torch.arange(n)), (3, 4), 7 * weights.expand(n, -1)
    )
    assert visible.sum(1).unique().tolist() == [3]
    drawn = torch.multinomial(weights.expand(n, -1), 3, generator=torch.Generator().manual_seed(0))
    theirs = torch.zeros(n, 12).scatter_(1, drawn, 1.0).bool()
    for a, b in (
        (visible.double(), theirs.double()),
        ((visible & visible[:, 7:8]).double(), (theirs & theirs[:, 7:8]).double()),
    ):
        p = (a.mean(0) + b.mean(0)) / 2
        assert ((a.mean(0) - b.mean(0)).abs() <= 4.5 * (2 * p * (1 - p) / n).sqrt()).all()
    assert not visible[:, 10:].any()


def test_scored_follows_the_closed_form_for_one_visible_patch():
    """With one patch left the probability is the score's share."""
    n, weights = 20000, torch.tensor([1.0, 2.0, 3.0, 4.0])
    visible = ~AttentionGuidedMasking(0.75)(sample_keys(4, 0, torch.arange(n)), (2, 2), weights.expand(n, -1))
    assert stats.chisquare(visible.sum(0).numpy(), n * weights.numpy().astype(float) / 10).pvalue > 1e-4


def test_scored_takes_zero_scores_last_and_uniformly():
    scores = torch.zeros(8000, 16)
    scores[:, 3] = 1e-30
    visible = ~AttentionGuidedMasking(0.75)(sample_keys(5, 0, torch.arange(8000)), (4, 4), scores)
    assert visible[:, 3].all()
    rest = np.delete(visible.sum(0).numpy(), 3)
    assert rest.sum() == 3 * 8000
    assert stats.chisquare(rest).pvalue > 1e-4


def test_scored_reads_half_precision():
    scores = torch.rand(6, 64, generator=torch.Generator().manual_seed(6)).bfloat16()
    keys = sample_keys(6, 0, torch.arange(6))
    masking = AttentionGuidedMasking(0.75)
    assert torch.equal(masking(keys, (8, 8), scores), masking(keys, (8, 8), scores.double()))


@pytest.mark.parametrize(
    ("kind", "made"),
    [
        ("blockwise", BlockwiseMasking),
        ("inverse", InverseMasking),
        ("scored", AttentionGuidedMasking),
        ("random", RandomMasking),
    ],
)
def test_builds_what_the_options_say(kind, made):
    masking = build_masking(MaskingOptions(kind=kind, mask_ratio=0.3, min_block=9, roll=False), (16, 8))
    assert type(masking) is made
    assert masking.mask_ratio == 0.3
    assert getattr(masking, "min_block", 9) == 9
    assert not getattr(masking, "roll", False)


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda: RandomMasking(1.0), "between 0 and 1"),
        (lambda: RandomMasking(0.75).n_visible((1, 3)), "leaves 0 visible"),
        (lambda: BlockMasking(0.6, 2).n_visible((7, 8)), "cannot be tiled"),
        (lambda: BlockwiseMasking(0.4, 0), "choose 1 or more"),
        (lambda: AttentionGuidedMasking()(torch.arange(2), (4, 4)), "needs a target that scores patches"),
        (
            lambda: AttentionGuidedMasking()(torch.arange(2), (4, 4), torch.rand(2, 9)),
            "do not fit 4 x 4 patches",
        ),
        (lambda: build_masking(MaskingOptions(kind="blocks", unit_px=20), (16, 16)), "not a multiple"),
    ],
)
def test_refuses_with_a_sentence(act, says):
    with pytest.raises(LaminaError, match=says):
        act()
