"""Counter-based random numbers against the published generator, and their independence of everything else."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from helpers.gpu import CUDA
from lamina.core import rng
from lamina.core.rng import Purpose, bits, fresh_keys, mix, permutation, sample_keys, seed_for, uniform


def splitmix64_finaliser(z: int) -> int:
    """Steele, Lea and Flood 2014, on Python's own integers."""
    mask = (1 << 64) - 1
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix_is_splitmix64():
    numbers = [0, 1, 2, 12345, (1 << 63) - 1, -1, -(1 << 63), -987654321]
    expected = [splitmix64_finaliser(n & ((1 << 64) - 1)) for n in numbers]
    assert [int(m) & ((1 << 64) - 1) for m in mix(torch.tensor(numbers))] == expected


def test_draws_are_splitmix64_started_from_key_and_purpose():
    """Written out on Python's own integers: runs made before go on with the same draws."""
    mask, golden = (1 << 64) - 1, 0x9E3779B97F4A7C15
    keys = [0, 1, -1, 123456789, -(1 << 63), (1 << 62) + 5]
    starts = [splitmix64_finaliser((((k & mask) ^ int(Purpose.MASK)) + golden) & mask) for k in keys]
    expected = [
        [splitmix64_finaliser((start + (i + 1) * golden) & mask) & (mask >> 1) for i in range(37)]
        for start in starts
    ]
    drawn = bits(torch.tensor(keys), 37, Purpose.MASK)
    assert drawn.tolist() == expected
    floats = uniform(torch.tensor(keys), 37, Purpose.MASK)
    assert floats.tolist() == [[(n >> 10) * 2.0**-53 for n in row] for row in expected]


COMPILED = """
import torch
from lamina.decoder.cross import CrossDecoder
from lamina.masking.random import RandomMasking
from lamina.core.rng import Purpose, bits, sample_keys, uniform

decoder = CrossDecoder(16, 4, (7, 7), 1, 16, 1, 1).train()

def draws(keys):
    mask = RandomMasking()(keys, (7, 7))
    predicted = decoder._draw(mask, 12, keys)
    return bits(keys, 196, Purpose.MASK), uniform(keys, 13, Purpose.CROP), mask, predicted

compiled = torch.compile(draws, fullgraph=True)
for epoch in range(3):
    keys = sample_keys(5, epoch, torch.arange(7))
    for ours, theirs in zip(compiled(keys), draws(keys), strict=True):
        assert torch.equal(ours, theirs)
print("equal")
"""


@pytest.mark.skipif(shutil.which("c++") is None and shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_draws_are_the_uncompiled_ones(tmp_path):
    """At counts that no vector register divides; in a process of its own, since wrong code ends it."""
    where = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env={**os.environ, **where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "equal"), ran.stderr[-2000:]


def test_a_key_depends_on_seed_epoch_and_sample_only():
    together = sample_keys(3, 5, torch.arange(100))
    alone = torch.cat([sample_keys(3, 5, torch.tensor([i])) for i in range(100)])
    assert torch.equal(together, alone)
    assert torch.equal(together, sample_keys(3, torch.full((100,), 5), torch.arange(100)))
    seen = {
        int(k) for seed in range(4) for epoch in range(4) for k in sample_keys(seed, epoch, torch.arange(50))
    }
    assert len(seen) == 4 * 4 * 50


def test_purposes_do_not_share_draws():
    keys = sample_keys(0, 0, torch.arange(4))
    drawn = {p: tuple(bits(keys, 8, p).flatten().tolist()) for p in Purpose}
    assert len(set(drawn.values())) == len(Purpose)
    # A longer draw begins with the shorter one: nothing else moves when one more number is asked for.
    assert torch.equal(bits(keys, 8, Purpose.CROP)[:, :3], bits(keys, 3, Purpose.CROP))


def test_uniform_is_uniform_and_uncorrelated():
    keys = sample_keys(1, 0, torch.arange(2000))
    draws = uniform(keys, 50, Purpose.CROP).numpy()
    assert draws.min() >= 0
    assert draws.max() < 1
    assert stats.kstest(draws.ravel(), "uniform").pvalue > 1e-4
    correlation = np.corrcoef(draws.T)
    assert np.abs(correlation - np.eye(50)).max() < 0.12
    neighbours = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert abs(neighbours) < 0.02


@pytest.mark.parametrize("n", [1, 2, 65_535, 65_536, 65_537, 200_000])
def test_permutation_sorts_the_keys_of_all_samples(n):
    keys = bits(sample_keys(3, 5, torch.arange(n)), 1, Purpose.ORDER)[:, 0]
    assert torch.equal(permutation(3, 5, n), torch.from_numpy(np.argsort(keys.numpy(), kind="stable")))


def test_permutation_breaks_ties_by_index(monkeypatch):
    few = lambda keys, n, purpose: bits(keys, n, purpose) % 7  # noqa: E731
    want = np.argsort(
        few(sample_keys(0, 0, torch.arange(90_000)), 1, Purpose.ORDER)[:, 0].numpy(), kind="stable"
    )
    monkeypatch.setattr(rng, "bits", few)

    def unstable(keys):  # as a sort may do: the last of equal keys comes first
        order = torch.from_numpy(np.lexsort((-np.arange(len(keys)), keys.numpy())))
        return keys[order], order

    monkeypatch.setattr(torch.Tensor, "sort", unstable)
    assert torch.equal(permutation(0, 0, 90_000), torch.from_numpy(want))


def test_permutation_is_one_and_changes_with_the_epoch():
    orders = [permutation(0, epoch, 97) for epoch in range(3)]
    assert all(sorted(o.tolist()) == list(range(97)) for o in orders)
    assert not torch.equal(orders[0], orders[1])
    assert torch.equal(orders[2], permutation(0, 2, 97))


def test_every_position_is_equally_likely():
    first = [int(permutation(seed, 0, 8)[0]) for seed in range(800)]
    assert stats.chisquare(np.bincount(first, minlength=8)).pvalue > 1e-4


def test_seed_for_fits_torch_and_differs():
    seeds = {seed_for(0, a, b) for a in range(20) for b in range(20)}
    assert len(seeds) == 400
    for seed in seeds:
        torch.Generator().manual_seed(seed)


def test_fresh_keys_follow_torchs_generator():
    torch.manual_seed(1)
    first = fresh_keys(4)
    torch.manual_seed(1)
    assert torch.equal(first, fresh_keys(4))


@pytest.mark.parametrize("device", [CUDA])
def test_gpu_agrees_with_cpu(device):
    keys = sample_keys(0, 1, torch.arange(64))
    assert torch.equal(bits(keys.to(device), 196, Purpose.MASK).cpu(), bits(keys, 196, Purpose.MASK))


def test_a_seed_for_the_processor_leaves_other_devices_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    with rng.torch_seed(5):
        first = torch.rand(3)
    assert seeded == []
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, torch.rand(3, generator=torch.Generator().manual_seed(5)))
