"""RandAugment and random erasing: functions of the image and its key, and timm's own."""

from __future__ import annotations

import math
import pickle
import random
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing

from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, seed_for
from lamina.data.augment.randaugment import TrainAugment
from lamina.data.loading.loader import TrainLoader
from lamina.data.options import DataOptions
from lamina.data.sources import ArraySource

torch.set_num_threads(1)
POLICY = "rand-m9-mstd0.5-inc1"
KEYS = sample_keys(0, 0, torch.arange(60))


def photo(channels: int = 3, seed: int = 0) -> torch.Tensor:
    """Smooth colours with an edge, 24 x 32 px, uint8."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 24), torch.linspace(0, 1, 32), indexing="ij")
    waves = [
        ((3 + c + seed) * (x + (c + 1) * y)).sin() * 0.4 + 0.5 + 0.1 * (x > 0.5) for c in range(channels)
    ]
    return (torch.stack(waves) * 255).clamp(0, 255).to(torch.uint8)


def seed_all(key: torch.Tensor) -> None:
    seed = seed_for(int(key), Purpose.AUGMENT)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def test_it_is_timm_s_randaugment() -> None:
    """The policy that DeiT's and timm's own training scripts build for bicubic interpolation."""
    augment, image = TrainAugment(POLICY, 0.0), photo()
    peer = rand_augment_transform(
        POLICY,
        {"translate_const": 10, "img_mean": (124, 116, 104), "interpolation": Image.Resampling.BICUBIC},
    )
    changed = 0
    for key in KEYS[:30]:
        seed_all(key)
        expected = torch.from_numpy(np.array(peer(Image.fromarray(image.permute(1, 2, 0).numpy())))).permute(
            2, 0, 1
        )
        assert torch.equal(augment(image, key), expected)
        changed += not torch.equal(expected, image)
    assert changed > 10


@pytest.mark.parametrize("kind", ["uint8", "float"])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_it_is_timm_s_erasing_in_normalised_units(kind: str, channels: int) -> None:
    image = photo(channels) if kind == "uint8" else photo(channels) / 255
    mean, std = torch.linspace(0.3, 0.6, channels), torch.linspace(0.2, 0.25, channels)
    augment = TrainAugment(None, 0.5, mean.tolist(), std.tolist())
    mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    pixels = image if kind == "float" else image / 255
    erased = 0
    for key in KEYS[:30]:
        seed_all(key)
        peer = RandomErasing(0.5, mode="pixel", device="cpu")((pixels - mean) / std) * std + mean
        found = augment(image, key)
        assert found.dtype == image.dtype
        scale = 1 if kind == "float" else 255
        torch.testing.assert_close(
            found / scale, peer.clamp(0, 1), rtol=0, atol=1e-5 if kind == "float" else 0.5 / 255 + 1e-5
        )
        erased += not torch.equal(found, image)
    assert 7 < erased < 23


def test_the_box_has_the_published_shape_and_rate() -> None:
    image = torch.full((1, 40, 40), 77, dtype=torch.uint8)
    keys = sample_keys(3, 0, torch.arange(400))
    augment = TrainAugment(None, 0.25)
    boxes = []
    for key in keys:
        hit = (augment(image, key) != 77)[0].nonzero()
        if len(hit):
            boxes.append((hit.amax(0) - hit.amin(0) + 1).tolist())
    assert abs(len(boxes) / 400 - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 400)
    shares = [h * w / 1600 for h, w in boxes]
    assert min(shares) > 0.01  # 2 %, in whole pixels, whose noise may be 77 at an edge
    assert 0.25 < max(shares) < 0.37
    assert all(0.25 < h / w < 4 for h, w in boxes)


def test_it_is_a_function_of_image_and_key() -> None:
    augment, image = TrainAugment(POLICY, 0.5), photo()
    before = image.clone()
    states = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())  # noqa: NPY002
    first = [augment(image, key) for key in KEYS]
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert torch.equal(image, before)
    again = pickle.loads(pickle.dumps(augment))  # noqa: S301 (as a worker that is spawned gets it)
    for i in reversed(range(len(KEYS))):  # in another order, by keys of other kinds
        random.seed(i)
        assert torch.equal(again(image, int(KEYS[i])), first[i])
        assert torch.equal(again(image, KEYS[i : i + 1]), first[i])
    assert len({tuple(x.flatten().tolist()) for x in first}) > 30


def test_what_another_thread_draws_does_not_matter() -> None:
    """Python's generator is one for the whole process; timm gets one of its own."""
    augment, image = TrainAugment(POLICY, 0.5), photo()
    expected = [augment(image, key) for key in KEYS[:40]]
    ended = threading.Event()

    def draw() -> None:
        while not ended.is_set():
            random.random()

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        found = [augment(image, key) for key in KEYS[:40]]
    finally:
        ended.set()
        thread.join()
    assert all(map(torch.equal, found, expected))


def test_generators_come_back_after_an_error() -> None:
    augment = TrainAugment(POLICY, 0.5)
    state = random.getstate()
    with pytest.raises(LaminaError, match="takes RGB"):
        augment(photo(1), KEYS[0])
    assert random.getstate() == state


def test_floats_are_augmented_as_their_8_bits() -> None:
    """A folder may hold 16-bit photographs among others: they become floats, and float they stay."""
    stored = photo()
    augment = TrainAugment(POLICY, 0.0)
    assert torch.equal(augment(stored.float() / 255, KEYS[0]), augment(stored, KEYS[0]).float() / 255)


def test_without_anything_to_do_the_image_is_the_same_object() -> None:
    image = photo()
    assert TrainAugment(None, 0.0)(image, KEYS[0]) is image


def test_what_makes_no_sense_is_refused() -> None:
    cases = [
        ("no RandAugment policy", lambda: TrainAugment("nonsense", 0.0)),
        ("no RandAugment policy", lambda: TrainAugment("rand-mx-n2", 0.0)),
        ("no RandAugment policy", lambda: TrainAugment("rand-q7", 0.0)),
        ("is a probability", lambda: TrainAugment(None, 1.5)),
        ("4 channel.*auto_augment", lambda: TrainAugment(POLICY, 0.0)(photo(4), KEYS[0])),
        ("one for each", lambda: TrainAugment(None, 1.0, (0.5,), (0.2,))(photo(), KEYS[0])),
        ("int32", lambda: TrainAugment(None, 1.0)(photo().int(), KEYS[0])),
        ("3 channel.*int32", lambda: TrainAugment(POLICY, 0.0)(photo().int(), KEYS[0])),
    ]
    for sentence, attempt in cases:
        with pytest.raises(LaminaError, match=sentence) as error:
            attempt()
        assert "\n" not in str(error.value)


def test_workers_do_not_matter() -> None:
    images = torch.stack([photo(seed=i) for i in range(8)])
    source = ArraySource(images, [str(i) for i in range(8)], list(range(8)))

    def epoch(workers: int, first: int = 0) -> list[torch.Tensor]:
        data = DataOptions(auto_augment=POLICY, erase=0.5, workers=workers)
        loader = TrainLoader(source, data, 5, 4, image_size=(24, 32))
        return [batch.images for batch in loader.batches(first, 4)]

    alone = epoch(0)
    assert all(map(torch.equal, alone, epoch(2)))
    assert all(map(torch.equal, alone[2:], epoch(0, first=2)))


def test_every_operation_takes_every_level() -> None:
    """At the highest level posterizing keeps no bit: black, where Pillow 13 raises."""
    augment = TrainAugment("rand-m10-n1-inc1", erase=0.0)
    keys = sample_keys(1, 0, torch.arange(400))
    found = [augment(photo(), key) for key in keys]
    assert any(not image.any() for image in found)
    assert all(image.shape == photo().shape for image in found)
