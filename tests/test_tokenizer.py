"""Tokenizers: DALL-E's architecture and files, one of one's own from training to ids, BEiT with either."""

import json
import math
import pickle
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import lamina
from lamina.data.options import Decoding
from lamina.errors import LaminaError
from lamina.report.tokenizer import TokenizerReport
from lamina.targets import TokenIds
from lamina.tokenizer import (
    DalleDecoder,
    DalleEncoder,
    DalleTokenizer,
    DiscreteVAE,
    TokenizerFolder,
    TokenizerOptions,
    load_tokenizer,
    measure_tokenizer,
    patch_means,
)
from lamina.tokenizer.measuring import perplexity
from lamina.tokenizing import train_tokenizer

PHOTOS = "sample:photos?crop=16&most=40"
TINY = {
    "image_size": 16,
    "width": 16,
    "levels": (4, 4, 4),
    "workers": 0,
    "batch_size": 32,
    "log_every_steps": 5,
}


def test_dalles_encoder_has_the_published_sizes():
    """openai/DALL-E: 256 hidden, 2 blocks in each of 4 groups, 8192 words; conv weights are called w and b."""
    with torch.device("meta"):
        encoder, decoder = DalleEncoder(), DalleDecoder()
    shapes = {name: tuple(p.shape) for name, p in encoder.named_parameters()}
    assert shapes["blocks.input.w"] == (256, 3, 7, 7)
    assert shapes["blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert shapes["blocks.group_1.block_1.res_path.conv_4.w"] == (256, 64, 1, 1)
    assert shapes["blocks.group_2.block_1.id_path.w"] == (512, 256, 1, 1)
    assert shapes["blocks.group_4.block_2.res_path.conv_1.w"] == (512, 2048, 3, 3)
    assert shapes["blocks.output.conv.w"] == (8192, 2048, 1, 1)
    assert "blocks.group_1.block_1.id_path.w" not in shapes
    assert sum(p.numel() for p in encoder.parameters()) == published_size()
    other = {name: tuple(p.shape) for name, p in decoder.named_parameters()}
    assert other["blocks.input.w"] == (128, 8192, 1, 1)
    assert other["blocks.group_1.block_1.res_path.conv_1.w"] == (512, 128, 1, 1)
    assert other["blocks.group_1.block_1.res_path.conv_4.w"] == (2048, 512, 3, 3)
    assert other["blocks.output.conv.w"] == (6, 256, 1, 1)


def published_size() -> int:
    """Counted by hand: 7x7 input; per block 3 3x3 and a 1x1 convolution in a quarter of the width; 1x1 output."""
    total = 256 * 3 * 49 + 256
    before = 256
    for width in (256, 512, 1024, 2048):
        for k in range(2):
            n_in, q = (before if k == 0 else width), width // 4
            total += q * n_in * 9 + q + 2 * (q * q * 9 + q) + width * q + width
            total += width * n_in + width if n_in != width else 0
        before = width
    return total + 8192 * 2048 + 8192


def test_dalles_encoder_is_its_equations():
    """A tiny one, written out: map to [0.1, 0.9], 7x7, blocks of ReLU and convolution over 64, max pools, argmax."""
    torch.manual_seed(0)
    encoder = DalleEncoder(width=8, depth=2, vocabulary=11)
    images = torch.rand(2, 3, 16, 24)
    w = dict(encoder.named_parameters())
    x = F.conv2d(0.8 * images + 0.1, w["blocks.input.w"], w["blocks.input.b"], padding=3)
    for g in range(1, 5):
        for k in (1, 2):
            at = f"blocks.group_{g}.block_{k}"
            inner = x
            for c, pad in ((1, 1), (2, 1), (3, 1), (4, 0)):
                name = f"{at}.res_path.conv_{c}"
                inner = F.conv2d(inner.relu(), w[f"{name}.w"], w[f"{name}.b"], padding=pad)
            short = F.conv2d(x, w[f"{at}.id_path.w"], w[f"{at}.id_path.b"]) if f"{at}.id_path.w" in w else x
            x = short + inner / 64  # 1 / (groups * blocks)^2
        if g < 4:
            x = F.max_pool2d(x, 2)
    logits = F.conv2d(x.relu(), w["blocks.output.conv.w"], w["blocks.output.conv.b"])
    assert torch.equal(DalleTokenizer(encoder).ids(images), logits.argmax(1))
    assert logits.shape == (2, 11, 2, 3)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_dalles_weights_come_from_a_local_file(tmp_path, suffix):
    torch.manual_seed(0)
    encoder = DalleEncoder(width=8, depth=2, vocabulary=11)
    file = tmp_path / f"encoder{suffix}"
    save_file(encoder.state_dict(), file) if suffix == ".safetensors" else torch.save(
        encoder.state_dict(), file
    )
    tokenizer, identity = load_tokenizer(file)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(tokenizer.ids(images), DalleTokenizer(encoder).ids(images))
    assert (tokenizer.vocabulary, tokenizer.stride) == (11, 8)
    assert len(identity.sha256) == 64


class Hostile:
    def __reduce__(self):
        return (open, ("/tmp/lamina-was-here", "w"))


def test_a_pickled_module_is_refused_and_runs_nothing(tmp_path):
    file = tmp_path / "encoder.pkl"
    file.write_bytes(pickle.dumps(Hostile()))
    torch.save(DalleEncoder(width=8, vocabulary=11), tmp_path / "module.pth")
    for name in ("encoder.pkl", "module.pth"):
        with pytest.raises(LaminaError, match="pickled module") as error:
            load_tokenizer(tmp_path / name)
        assert "state_dict" in str(error.value)
    from pathlib import Path

    assert not Path("/tmp/lamina-was-here").exists()
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(LaminaError, match="damaged"):
        load_tokenizer(tmp_path / "other.safetensors")
    with pytest.raises(LaminaError, match="is no tokenizer"):
        load_tokenizer(tmp_path / "nothing")


def test_ids_count_the_combinations_of_rounded_latents():
    """FSQ: id = sum of digit_k * product of the levels before k; decode is the inverse on codes."""
    torch.manual_seed(0)
    tokenizer = DiscreteVAE((3, 4), width=8, depth=1)
    images = torch.rand(2, 3, 16, 16)
    latent = tokenizer.encoder(2 * images - 1).sigmoid()
    first, second = (2 * latent[:, 0]).round(), (3 * latent[:, 1]).round()
    ids = tokenizer.ids(images)
    assert torch.equal(ids, (first + 3 * second).long())
    assert tokenizer.vocabulary == 12
    codes = torch.stack([first - 1, second / 1.5 - 1], 1)
    expected = ((tokenizer.decoder(codes) + 1) / 2).clamp(0, 1)
    torch.testing.assert_close(tokenizer.decode(ids), expected, rtol=1e-5, atol=1e-6)


def test_gradients_pass_the_rounding():
    tokenizer = DiscreteVAE((3, 4), width=8, depth=1)
    tokenizer(torch.rand(2, 3, 16, 16))["loss"].backward()
    assert not [n for n, p in tokenizer.named_parameters() if p.grad is None or not p.grad.any()]


def test_perplexity_of_known_counts():
    assert perplexity(torch.tensor([5, 5, 0, 0])) == pytest.approx(2)
    assert perplexity(torch.tensor([1, 1, 2])) == pytest.approx(math.exp(1.5 * math.log(2)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("tokenizer") / "tok"
    train_tokenizer(
        PHOTOS, out, TokenizerOptions(**TINY, epochs=25.0), callbacks=lambda *a: [TokenizerReport(*a)]
    )
    return out


def test_a_short_training_learns_and_uses_its_ids(trained):
    """Some seconds and 64 ids do not reach mean colours of any value; the run that does is in
    docs/benchmarks.md."""
    found = json.loads((trained / "results.json").read_text())
    assert found["share_used"] > 0.1
    assert found["psnr"] > 18
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3
    page = (trained / "report.html").read_text()
    assert "from ids" in page
    assert "<script" not in page


def test_measures_are_those_of_the_pictures(trained):
    tokenizer, _ = load_tokenizer(trained)
    images = torch.rand(3, 3, 16, 16)
    result = measure_tokenizer(tokenizer, [lamina.Batch(images)])
    made = tokenizer.decode(tokenizer.ids(images))
    assert result.psnr == pytest.approx(float(10 * (1 / (made - images).square().mean()).log10()), rel=1e-5)
    means = (
        images.reshape(3, 3, 2, 8, 2, 8)
        .mean((3, 5), keepdim=True)
        .expand(3, 3, 2, 8, 2, 8)
        .reshape(images.shape)
    )
    torch.testing.assert_close(patch_means(images, 8), means)
    assert result.psnr_of_means == pytest.approx(
        float(10 * (1 / (means - images).square().mean()).log10()), rel=1e-5
    )
    assert sum(result.counts) == 3 * 4
    assert result.used == len(tokenizer.ids(images).unique())


def test_training_goes_on_exactly(tmp_path):
    options = TokenizerOptions(**TINY, max_steps=6, checkpoint_every_steps=3)
    whole, part = tmp_path / "whole", tmp_path / "part"
    train_tokenizer(PHOTOS, whole, options)
    shutil.copytree(whole, part)
    shutil.rmtree(part / "checkpoints" / "step-6")
    train_tokenizer(PHOTOS, part, options, resume=True)
    a, b = (load_file(run / "tokenizer.safetensors") for run in (whole, part))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(LaminaError, match="these differ: width"):
        train_tokenizer(PHOTOS, part, TokenizerOptions(**(TINY | {"width": 8})), resume=True)
    with pytest.raises(LaminaError, match="already holds a tokenizer"):
        train_tokenizer(PHOTOS, part, options)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(LaminaError, match="is no tokenizer; choose"):
        train_tokenizer(PHOTOS, tmp_path / "mine", options, overwrite=True)
    with pytest.raises(LaminaError, match="multiples of 8"):
        train_tokenizer(PHOTOS, tmp_path / "odd", TokenizerOptions(**(TINY | {"image_size": 20})))
    assert not TokenizerFolder(tmp_path / "odd").exists()


def test_one_id_falls_on_each_patch_of_the_student(trained):
    tokenizer, identity = load_tokenizer(trained)
    target = TokenIds(tokenizer, (4, 4), identity)
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    ids, scores = target(images)
    assert scores is None
    assert ids.shape == (2, 24)
    larger = F.interpolate(images.float() / 255, (32, 48), mode="bicubic", antialias=True).clamp(0, 1)
    assert torch.equal(ids, tokenizer.ids(larger).flatten(1))
    assert target.state_dict() == {}


@pytest.mark.parametrize("fusion", ["none", "mff"])
@pytest.mark.parametrize("own", [True, False])
def test_beit_gets_below_the_best_constant_with_either(tmp_path, trained, own, fusion):
    """The best constant gives each id its own frequency among the hidden patches: their entropy."""
    from lamina.data import eval_batches, open_source
    from lamina.guides import open_target
    from lamina.rng import sample_keys
    from lamina.tokens import take

    source = trained
    if not own:  # DALL-E's architecture; its words are sorted out by random weights
        torch.manual_seed(3)
        source, encoder = tmp_path / "dalle.safetensors", DalleEncoder(width=8, vocabulary=16)
        source_of = open_source(PHOTOS)
        seen = torch.stack([source_of.read(i, Decoding(3)) for i in range(0, 600, 5)]) / 255
        with torch.no_grad():  # so that no word is the likeliest everywhere
            logits = encoder(0.8 * F.interpolate(seen, (32, 32)) + 0.1)
            encoder.blocks.output.conv.b -= logits.mean((0, 2, 3))
        save_file(encoder.state_dict(), source)
    options = {
        "encoder.width": 24,
        "encoder.depth": 3,
        "encoder.heads": 2,
        "fusion.layers": "all",
        "masking.min_block": 2,
        "target.tokenizer": str(source),
        "train.checkpoint_every_seconds": None,
        "optim.warmup_epochs": 1.0,
    }
    out = tmp_path / "run"
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 32, "base_lr": 8e-3, "workers": 0}
    lamina.pretrain(PHOTOS, out, "beit-small", options=options, epochs=15.0, fusion=fusion, **sizes)
    method, recipe = lamina.load_method(out)
    recipe, method.target = open_target(recipe)
    assert recipe.target.width == (64 if own else 16)
    held_out = next(eval_batches(open_source(PHOTOS, "val"), (16, 16), 3, 200, 0, recipe.data))
    batch = lamina.Batch(held_out.images, sample_keys(1, 0, torch.arange(len(held_out))))
    with torch.no_grad():
        prediction = method.predict(batch)
        ids = take(method.target(batch.images)[0], prediction.where)
        loss = float(method.loss(prediction.values, ids).mean())
    counts = torch.bincount(ids.flatten())
    assert loss < 0.97 * math.log(perplexity(counts))


@pytest.mark.parametrize("network", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_beit_goes_on_exactly_on_either_network(tmp_path, trained, network):
    """On a plain ViT and on its published one, with shared relative position biases and layer scale."""
    options = {
        "encoder.width": 24,
        "encoder.depth": 3,
        "encoder.heads": 2,
        "fusion.layers": "all",
        "masking.min_block": 2,
        "target.tokenizer": str(trained),
        "train.checkpoint_every_seconds": None,
        "train.keep_checkpoints": 100,
        "encoder.drop_path": 0.1,
    }
    if network.startswith("beit"):
        options |= {"encoder.relative_positions": "shared", "encoder.layer_scale": 0.1}
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 16, "workers": 0, "encoder": network}
    out, part = tmp_path / "whole", tmp_path / "part"
    lamina.pretrain(
        PHOTOS, out, "beit-small", options=options, max_steps=4, checkpoint_every_steps=2, **sizes
    )
    shutil.copytree(out, part)
    shutil.rmtree(part / "checkpoints" / "step-4")
    lamina.pretrain(PHOTOS, part, resume=True)
    found = [(run / "checkpoints" / "step-4" / "model.safetensors").read_bytes() for run in (out, part)]
    assert found[0] == found[1]
    assert not [
        name for name in load_file(out / "checkpoints" / "step-4" / "model.safetensors") if "target" in name
    ]
    exported = lamina.export_timm(out, tmp_path / "vit.safetensors")
    images = torch.rand(2, 3, 16, 16)
    own, handed = (lamina.load_encoder(place)(images).patches for place in (out, exported.weights))
    torch.testing.assert_close(own, handed)
