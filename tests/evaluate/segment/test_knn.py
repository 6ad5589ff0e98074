"""kNN segmentation: what patches vote for, by a search written out, and how many are remembered."""

import pytest
import torch
import torch.nn.functional as F

from helpers.dense_data import CLASSES, toy_encoder, toy_maps
from lamina.core.errors import LaminaError
from lamina.data.dense.loader import DenseLoader
from lamina.data.dense.sources import IGNORE
from lamina.data.options import DataOptions
from lamina.evaluate.segment.head_options import KNNHeadOptions
from lamina.evaluate.segment.knn import Bank, KNNSegmenter, build_bank, choose_k, class_shares
from lamina.evaluate.segment.window_options import SegmentWindows

CPU = torch.device("cpu")
DATA = DataOptions(workers=0, prefetch_batches=1)
PLAIN = SegmentWindows(size=(32, 48), base=32).resolved((32, 48), (8, 8)).plain()


def bank_of(encoder, options, n=6, batch=4, maps=None, seed=0):
    loader = DenseLoader(maps or toy_maps(n), DATA, PLAIN, seed, batch)
    return build_bank(encoder, loader.batches(0, -(-n // batch)), n, len(CLASSES), options, CPU)


def test_shares_of_classes_in_patches():
    labels = torch.tensor([[[0, 0, 2, 2], [0, 1, 2, IGNORE], [1, 1, IGNORE, IGNORE], [1, 1, IGNORE, IGNORE]]])
    shares = class_shares(labels.to(torch.uint8), (2, 2), 3)
    assert shares[0].tolist() == [[0.75, 0.25, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_patches_vote_as_a_search_written_out():
    encoder = toy_encoder().eval()
    bank = bank_of(encoder, KNNHeadOptions())
    images = toy_maps(2, seed=5).images.images
    found = KNNSegmenter(encoder, bank, 3, 2).logits(images)
    with torch.no_grad():
        tokens = encoder.norm(encoder(images, (2,))[0])[:, encoder.n_prefix :]
    mean, deviation = bank.features.mean(0), bank.features.std(0, correction=0)
    features, queries = (bank.features - mean) / deviation, (tokens - mean) / deviation
    votes = torch.empty(2, 24, 3)
    for b in range(2):
        for patch in range(24):
            cosines = F.cosine_similarity(features, queries[b, patch][None])
            votes[b, patch] = bank.shares[cosines.topk(3).indices].mean(0)
    maps = votes.view(2, 4, 6, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(found, F.interpolate(maps, (32, 48), mode="bilinear"))
    torch.testing.assert_close(found.sum(1), torch.ones(2, 32, 48))


def test_a_remembered_patch_finds_itself():
    """With k = 1, images of the bank get their own classes back, but at borders."""
    encoder, maps = toy_encoder().eval(), toy_maps(6)
    predicted = KNNSegmenter(encoder, bank_of(encoder, KNNHeadOptions(), maps=maps), 1, 2).logits(
        maps.images.images
    )
    centres = predicted.argmax(1)[:, 4::8, 4::8]
    assert torch.equal(centres, maps.maps[:, 4::8, 4::8].long())


def test_the_bank_is_bounded_seeded_and_of_whole_patches():
    encoder = toy_encoder().eval()
    everything = bank_of(encoder, KNNHeadOptions())
    assert len(everything.features) == 6 * 24
    assert everything.images.bincount().tolist() == [24] * 6
    few = bank_of(encoder, KNNHeadOptions(patches=30))
    assert few.images.bincount().tolist() == [5] * 6
    assert torch.equal(few.features, bank_of(encoder, KNNHeadOptions(patches=30)).features)
    assert not torch.equal(few.features, bank_of(encoder, KNNHeadOptions(patches=30), seed=1).features)
    by_three = bank_of(encoder, KNNHeadOptions(patches=30), batch=3)  # the batch does not matter
    torch.testing.assert_close(few.features, by_three.features)
    blank = toy_maps(6)
    blank.maps[:, :, :8] = IGNORE  # a column of patches without a class
    assert len(bank_of(encoder, KNNHeadOptions(), maps=blank).features) == 6 * 20
    blank.maps[:] = IGNORE
    with pytest.raises(LaminaError, match="no patch"):
        bank_of(encoder, KNNHeadOptions(), maps=blank)


def test_k_is_chosen_on_training_images():
    """Where every feature is held by four patches, one of them with another class, three neighbours are
    right and one is a guess."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.randn(40, 16, generator=generator)
    kind = torch.arange(40).repeat(20)
    truth = kind % 2
    noisy = torch.where(torch.rand(800, generator=generator) < 0.3, 1 - truth, truth)
    noisy[-80:] = truth[-80:]
    features = kinds[kind] + 0.05 * torch.randn(800, 16, generator=generator)
    shares = F.one_hot(noisy, 2).float()
    bank = Bank(features, shares, torch.arange(20).repeat_interleave(40))
    k, scores = choose_k(bank, (1, 9, 700))
    assert k == 9
    assert scores[9] > scores[1] > scores[700]
    assert choose_k(bank, (3,)) == (3, {})
    with pytest.raises(LaminaError, match="each of its numbers must be 1 or more"):
        KNNHeadOptions(k=(0,))
