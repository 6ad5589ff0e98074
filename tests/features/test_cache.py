"""Cached vectors: the same numbers without an image read, another file where anything differs, nothing trusted."""

import os
from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from helpers.runs import shaken, stripes, stripes_data, toy_recipe, toy_run
from lamina.core.errors import LaminaError
from lamina.core.frozen import WeightsId, network_sha256
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.data.sources import ArraySource, Subset
from lamina.decoder.cross import CrossDecoder, PromptDecoder
from lamina.encoder.build import build_vit
from lamina.encoder.encoder import Encoder
from lamina.encoder.options import EncoderOptions
from lamina.evaluate.probes import evaluate_knn
from lamina.features.cache import FeatureCache
from lamina.features.embed import embed
from lamina.features.extract import collect
from lamina.features.options import ComputeOptions, FeatureOptions
from lamina.features.pooling import BackboneVectors, PixelVectors
from lamina.fusion.last_layer import LastLayer
from lamina.fusion.layer_mix import LayerMix
from lamina.interop.backbone import Backbone
from lamina.recipes.build import build_method
from lamina.supervised.classifier import Supervised
from lamina.supervised.options import SupervisedOptions
from lamina.targets.token_ids import TokenIds
from lamina.tokenizer.vae import DiscreteVAE

SMALL = {"width": 24, "heads": 2}


def backbone(seed=0, **encoder):
    method = shaken(build_method(toy_recipe(**{**SMALL, **encoder})), seed)
    return Backbone(method.encoder, method.fusion)


class Counting(ArraySource):
    """Counts the images that are read."""

    n_read = 0

    def inspect(self, i, how=None):
        self.n_read += 1
        return super().inspect(i, how)


def counting(seed=1, **changes):
    made = stripes(20, seed)
    given = {"images": made.images, "names": [made.name(i) for i in range(20)], "labels": made.labels}
    return Counting(**{**given, "class_names": made.class_names, **changes})


def gather(source, folder, model=None, **others):
    extractors = {"trained": BackboneVectors(model or backbone()), "pixels": PixelVectors(), **others}
    return collect(source, extractors, (32, 48), 3, None, ComputeOptions(7, 0, "cpu", cache=folder))


def assert_same(one, other):
    assert list(one.vectors) == list(other.vectors)
    assert all(torch.equal(one.vectors[key], other.vectors[key]) for key in one.vectors)
    assert torch.equal(one.index, other.index)
    assert torch.equal(one.labels, other.labels)
    assert one.faults == other.faults


def test_what_is_cached_is_read_no_more_and_is_the_same(tmp_path):
    plain = gather(counting(), None)
    first = gather(counting(), tmp_path)
    assert_same(first, plain)
    assert first.timing.images == 20
    source = counting()
    again = gather(source, tmp_path)  # another source, another network, of the same content
    assert source.n_read == 0
    assert_same(again, plain)
    assert again.timing.images == 0
    assert str(again.timing).startswith("features from the cache")
    assert len(list(tmp_path.iterdir())) == 2
    assert not [file for file in tmp_path.iterdir() if file.suffix != ".safetensors"]


def test_an_encoder_that_is_new_alone_passes_the_images(tmp_path):
    model, passed = backbone(1), []
    gather(counting(), tmp_path)
    model.encoder.vit.blocks[0].register_forward_hook(lambda _, args, out: passed.append(len(out)))
    other = backbone()
    other.encoder.vit.blocks[0].register_forward_hook(lambda *_: pytest.fail("its vectors are known"))
    found = gather(counting(), tmp_path, other, new=BackboneVectors(model))
    assert sum(passed) == 20
    assert_same(found, gather(counting(), None, new=BackboneVectors(backbone(1))))


def changed(model, name, value):
    """The backbone with one tensor, or one attribute, a little different."""
    owner, _, last = name.rpartition(".")
    module = model.get_submodule(owner)
    with torch.no_grad():
        setattr(module, last, value) if value is not None else getattr(module, last).flatten()[0].add_(1e-6)
    return BackboneVectors(model)


def test_whatever_numbers_depend_on_is_in_the_key(tmp_path):
    reading, source = DataOptions(), counting()

    def file(extractor=None, source=source, size=(32, 48), channels=3, reading=reading):
        cache = FeatureCache.of(tmp_path, source, size, channels, reading)
        return cache.file(extractor or BackboneVectors(backbone())).name

    images = source.images.clone()
    images[19, 2, 31, 47] += 1
    others = {
        "weight": file(changed(backbone(), "encoder.vit.blocks.2.mlp.fc2.bias", None)),
        "fusion": file(changed(backbone(), "fusion.pool.logits", None)),
        "statistics": file(changed(backbone(), "encoder.mean", None)),
        "heads": file(BackboneVectors(backbone(heads=3))),
        "epsilon": file(changed(backbone(), "encoder.vit.norm.eps", 1e-3)),
        "no fusion": file(BackboneVectors(Backbone(backbone().encoder))),
        "layers": file(BackboneVectors(backbone(), FeatureOptions(layers=(1,)))),
        "order of layers": file(BackboneVectors(backbone(), FeatureOptions(layers=(1, 0)))),
        "pools": file(BackboneVectors(backbone(), FeatureOptions(pools=("cls",)))),
        "pixels": file(PixelVectors()),
        "size": file(size=(48, 32)),
        "channels": file(channels=1),
        "crop": file(reading=replace(reading, eval_crop_share=1.0)),
        "alpha": file(reading=replace(reading, alpha_background=0)),
        "orientation": file(reading=replace(reading, exif_orientation=False)),
        "limit": file(reading=replace(reading, max_pixels=1000)),
        "a pixel": file(source=counting(images=images)),
        "a label": file(source=counting(labels=[1, *source.labels[1:]])),
        "a class": file(source=counting(class_names=["rows", "columns", "nothing"])),
        "a name": file(source=counting(names=["x", *(source.name(i) for i in range(1, 20))])),
        "fewer": file(source=Subset(source, range(19))),
        "other order": file(source=Subset(source, range(19, -1, -1))),
    }
    assert len({file(), *others.values()}) == len(others) + 1
    same = file(reading=replace(reading, crop="center", flip=0.0, workers=7))  # nothing that evaluation reads
    assert same == file()


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 32), 40 + 30 * i).convert("RGB").save(
            tmp_path / "images" / "ab"[i % 2] / f"{i}.png"
        )
    (tmp_path / "images" / "a" / "broken.png").write_bytes(b"\x89PNG")
    return tmp_path / "images"


def test_files_are_told_apart_by_size_and_time_and_unreadable_ones_come_back(folder, tmp_path):
    def source():
        return open_source(folder)

    first = gather(source(), tmp_path / "cache")
    assert [fault.index for fault in first.faults] == [3]
    assert {len(matrix) for matrix in first.vectors.values()} == {len(first.index)} == {6}
    assert_same(gather(source(), tmp_path / "cache"), first)
    identity, file = source().identity(), folder / "b" / "5.png"
    assert source().identity() == identity
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    assert source().identity() != identity
    file.unlink()
    assert source().identity() != identity


def test_vectors_of_other_images_are_not_put_together(folder, tmp_path):
    """A file that was changed behind its size and time: what is computed now decides."""
    cache, file = tmp_path / "cache", folder / "b" / "5.png"
    gather(open_source(folder), cache)
    stat = file.stat()
    file.write_bytes(b"\x00" * stat.st_size)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = gather(open_source(folder), cache, new=BackboneVectors(backbone(1)))
    assert {len(matrix) for matrix in found.vectors.values()} == {5}
    assert_same(found, gather(open_source(folder), None, new=BackboneVectors(backbone(1))))
    assert_same(gather(open_source(folder), cache), gather(open_source(folder), None))


def flip(file):
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)


def shift(file):
    tensors = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"lamina": "{}"})


def swap(file):
    for other in file.parent.iterdir():
        if other != file:
            file.write_bytes(other.read_bytes())


DAMAGE = {
    "a bit": flip,
    "a bit of the header": lambda file: file.write_bytes(file.read_bytes().replace(b"[[0, 1", b"[[0, 2", 1)),
    "the end": lambda file: file.write_bytes(file.read_bytes()[:-1]),
    "all": lambda file: file.write_bytes(b""),
    "another format": lambda file: file.write_text("features"),
    "another's tensors": shift,
    "another's name": swap,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_or_foreign_is_computed_anew(folder, tmp_path, damage):
    (folder / "a" / "broken.png").rename(folder / "a" / "1.png")  # index 1, so that the header has a fault
    cache = tmp_path / "cache"
    first = gather(open_source(folder), cache)
    for file in sorted(cache.iterdir()):
        whole = file.read_bytes()
        damage(file)
        assert file.read_bytes() != whole
        found = gather(open_source(folder), cache)
        assert_same(found, first)
        assert file.read_bytes() == whole


def test_what_cannot_be_told_apart_is_not_cached(tmp_path):
    class Unknown(ArraySource):
        def fingerprint(self, indices):
            return None

    made = stripes(6, 1)
    source = Unknown(made.images, [made.name(i) for i in range(6)], made.labels, made.class_names)
    table = gather(source, tmp_path)
    assert table.notes == ("vectors are not cached: these images have no identity",)
    table = gather(made, tmp_path, own=lambda images: {("mine", "-"): images.float().mean((2, 3))})
    assert len(list(tmp_path.iterdir())) == 2
    assert "own" in table.notes[0]


def test_a_folder_that_cannot_be_written_is_found_before_any_image_is_read(tmp_path):
    (tmp_path / "file").write_text("in the way")
    source = counting()
    with pytest.raises(LaminaError, match="cannot be written") as caught:
        gather(source, tmp_path / "file" / "cache")
    assert "\n" not in str(caught.value)
    assert source.n_read == 0


def test_evaluations_of_several_checkpoints_share_their_baselines(tmp_path):
    toy_run(tmp_path / "run", toy_recipe(**SMALL), steps=(3, 6))
    cache = tmp_path / "cache"
    plain = evaluate_knn(tmp_path / "run", stripes_data(), workers=0, device="cpu")
    first = evaluate_knn(tmp_path / "run", stripes_data(), workers=0, device="cpu", cache=cache)
    assert len(list(cache.iterdir())) == 6  # three encoders, two parts
    again = evaluate_knn(tmp_path / "run", stripes_data(), workers=0, device="cpu", cache=str(cache))
    assert plain == first == again
    assert (first.timing.images, again.timing.images) == (90, 0)
    evaluate_knn(f"{tmp_path / 'run'}@3", stripes_data(), workers=0, device="cpu", cache=cache)
    assert len(list(cache.iterdir())) == 8


def test_embedding_takes_the_cache_too(folder, tmp_path):
    toy_run(tmp_path / "run", toy_recipe(**SMALL))
    for out in ("a.csv", "b.csv"):
        table = embed(
            tmp_path / "run", folder, tmp_path / out, workers=0, device="cpu", cache=tmp_path / "cache"
        )
    assert table.timing.images == 0
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


@pytest.mark.parametrize(
    ("made", "sha256"),
    [
        (lambda: LastLayer(2), "7408fe5a82906ff07be1baeec64b79d06acaa7b538f9afd83cffbfe7d17026c4"),
        (lambda: LayerMix(24, 2, 2), "1f01e6b07c98dfcd57a11fc4f509ca941a9b328302c612c5790c180443b1c40a"),
        (lambda: of_pool("cls"), "985b65c3acb0070699f2ad3ad1933c7927275edbf46bdd4b7d511a0f49b4ac39"),
        (lambda: of_pool("attentive"), "3dad904e3c9f91165905ec936091c3956ccd7f7e70a26beba9baca2ac8811bad"),
        (
            lambda: CrossDecoder(24, 5, (2, 2), 1, 16, 2, 2),
            "acee6dccd5fa865de15e912c8a4c9bb87d4e1da4b623ebd110f8db42ac0f5d1e",
        ),
        (
            lambda: PromptDecoder(24, 5, (2, 2), 1, 16, 2, 2),
            "8de8acc33ee8f68f3bb629271d252b87fe59ce15e07a2cd36d1ead6790de698a",
        ),
        (
            lambda: TokenIds(DiscreteVAE((2, 2), 8, 1, 3), (8, 8), WeightsId("it", "00")),
            "edebebc5d67d7a948a4cecd0fb0a16ae65aed4c2257f5ff5b940b67d6c8fd61b",
        ),
    ],
)
def test_a_file_that_moves_changes_no_networks_hash(made, sha256):
    """The hashes are those of the code before its files were moved into packages."""
    network = made()
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    with torch.no_grad():
        for i, (_, tensor) in enumerate(sorted(tensors.items())):
            tensor.copy_(torch.full_like(tensor, (i % 7) / 8) if tensor.is_floating_point() else tensor)
    assert network_sha256(network) == sha256


def of_pool(pool):
    options = EncoderOptions(image_size=(16, 16), patch_size=8, width=24, depth=2, heads=2)
    encoder = Encoder(build_vit(options), "drop", (0.5,) * 3, (0.25,) * 3)
    return Supervised(encoder, LastLayer(2), 3, SupervisedOptions(pool=pool, mixup=0.0, cutmix=0.0))
