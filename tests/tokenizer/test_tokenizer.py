"""Tokenizers of one's own from training to ids, and BEiT with them or with DALL-E's encoder."""

import html
import json
import math
import re
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

import lamina
from helpers.options import as_read
from lamina import tokenizer_training
from lamina.core.errors import LaminaError
from lamina.core.frozen import device_of, identify
from lamina.core.records import read_json, write_json
from lamina.data.loading.loader import eval_batches
from lamina.data.open import open_source
from lamina.data.options import Decoding
from lamina.report.picture_store import as_pil, embedded
from lamina.report.tokenizer import TokenizerReport
from lamina.targets.token_ids import TokenIds, Tokenizer
from lamina.tokenizer.dalle import DalleEncoder
from lamina.tokenizer.folder import TokenizerFolder, build_tokenizer, load_tokenizer
from lamina.tokenizer.measure import TokenizerResult, measure_tokenizer, patch_means, perplexity
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.vae import DiscreteVAE
from lamina.tokenizer_training import train_tokenizer
from lamina.train.state import Outcome

PHOTOS = "sample:photos?crop=16&most=40"
TINY = {
    "image_size": 16,
    "width": 16,
    "levels": (4, 4, 4),
    "workers": 0,
    "batch_size": 32,
    "log_every_steps": 5,
}


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
        PHOTOS,
        out,
        TokenizerOptions(**TINY, epochs=10.0, base_lr=1.6e-2),
        callbacks=lambda *a: [TokenizerReport(*a)],
    )
    return out


def test_a_short_training_learns_and_uses_its_ids(trained):
    """Some seconds and 64 ids do not reach mean colours of any value; the run that does is in
    docs/guides/methods.md."""
    found = json.loads((trained / "results.json").read_text())
    assert found["share_used"] > 0.1
    assert found["psnr"] > 18
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["psnr"] > rows[0]["psnr"] + 3


def test_the_page_is_complete_in_itself_and_shows_what_was_measured(trained):
    page, found = (trained / "report.html").read_text(), json.loads((trained / "results.json").read_text())
    assert not re.findall(r"<(script|link|iframe|object)\b|(?:src|href)=\"(?!data:|#)|url\((?!data:)", page)
    for text in (f"{found['psnr']:.2f} dB", f"{found['psnr_of_means']:.2f} dB", "64 = 4 x 4 x 4", PHOTOS):
        assert html.escape(text) in page
    cards = re.findall(r'<article class="card".*?</article>', page, re.S)
    assert len(cards) == 12
    shown = [re.findall(r'src="(data:image/[^"]+)"', card) for card in cards]
    assert all(
        len(set(pictures)) == 3 for pictures in shown
    )  # original, mean colours, from ids: none the same
    batch = next(
        eval_batches(open_source(PHOTOS, "val"), (16, 16), 3, 64, 0, TokenizerOptions(**TINY).reading())
    )
    originals = {embedded(as_pil(image)).uri for image in batch.images}
    assert len(originals & {pictures[0] for pictures in shown}) >= 1


def test_a_lost_page_comes_back_where_there_is_nothing_left_to_train(tmp_path):
    options = TokenizerOptions(**TINY, max_steps=2)
    for resume in (False, True):
        train_tokenizer(
            PHOTOS, tmp_path / "tok", options, resume=resume, callbacks=lambda *a: [TokenizerReport(*a)]
        )
        (tmp_path / "tok" / "report.html").unlink()  # raises where it was not written


@pytest.mark.parametrize("resumed", [False, True])
def test_what_is_measured_at_the_end_is_on_the_device_that_trains(trained, tmp_path, monkeypatch, resumed):
    """A checkpoint comes as a copy in host memory, and so does what is read from a folder; the device "meta"
    stands for a GPU."""
    options, folder = TokenizerOptions(**TINY), TokenizerFolder(tmp_path if not resumed else trained)
    found = []

    def measure(tokenizer, *_):
        found.append(device_of(tokenizer).type)
        return TokenizerResult(1, 1.0, 1.0, 64, 1, 1.0, (1,))

    monkeypatch.setattr(tokenizer_training, "choose_device", lambda name: torch.device("meta"))
    monkeypatch.setattr(tokenizer_training, "measure_tokenizer", measure)
    monkeypatch.setattr("lamina.report.tokenizer.write_tokenizer_report", measure)
    monkeypatch.setattr(tokenizer_training, "write_json", lambda *_: None)
    held_out = open_source(PHOTOS, "val")
    callbacks = [TokenizerReport(folder, held_out, options)]
    if not resumed:
        callbacks.append(tokenizer_training.SaveTokenizer(folder, held_out, options))
    for callback in callbacks:
        if not resumed:
            callback.task = build_tokenizer(options)
        callback.on_end(Outcome("finished", 2, 2, tmp_path, {}, ""))
    assert found == ["meta"] * len(callbacks)


def test_ids_and_pictures_of_a_folder_come_back(trained):
    """What was trained, read from its folder: same hash each time, another one for other weights."""
    tokenizer, identity = load_tokenizer(trained)
    again, same = load_tokenizer(str(trained))
    assert isinstance(tokenizer, Tokenizer)
    assert not tokenizer.training
    assert identity.sha256 == same.sha256
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    assert torch.equal(tokenizer.ids(images), again.ids(images.float() / 255))
    with torch.no_grad():
        next(again.parameters()).view(-1)[0] += 1
    assert identify("again", again).sha256 != identity.sha256


def test_what_cannot_be_read_is_said_in_a_sentence(trained, tmp_path):
    with pytest.raises(LaminaError, match="reads 3 channels, the images have 1"):
        load_tokenizer(trained)[0].ids(torch.rand(1, 1, 16, 16))
    with pytest.raises(LaminaError, match="multiples of 8 px, not 16 x 20"):
        load_tokenizer(trained)[0].ids(torch.rand(1, 3, 16, 20))
    with pytest.raises(LaminaError, match="each at least 2"):
        DiscreteVAE((8, 1))
    with pytest.raises(LaminaError, match="no held-out image"):
        measure_tokenizer(DiscreteVAE((3,), width=8), [])
    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "tokenizer.safetensors").write_bytes(b"torn")
    with pytest.raises(LaminaError, match="is damaged"):
        load_tokenizer(broken)
    (broken / "tokenizer.safetensors").unlink()
    with pytest.raises(LaminaError, match="reach a checkpoint"):
        load_tokenizer(broken)
    config = read_json(broken / "config.json")
    for changed in (config | {"version": 2}, {"format": config["format"]}):
        write_json(broken / "config.json", changed)
        with pytest.raises(LaminaError, match="another version"):
            load_tokenizer(broken)


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
    with pytest.raises(LaminaError, match="is not a tokenizer; choose"):
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
    from lamina.core.patches import take
    from lamina.core.rng import sample_keys
    from lamina.interop.teachers import open_target

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
    options = as_read("beit-small", options, fusion)
    lamina.pretrain(
        PHOTOS, out, "beit-small", options=options, epochs=8.0 if own else 5.0, fusion=fusion, **sizes
    )
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


def test_a_finished_training_that_is_resumed_measures_again(tmp_path, trained):
    out = tmp_path / "tok"
    shutil.copytree(trained, out)
    before = json.loads((out / "results.json").read_text())
    (out / "results.json").unlink()
    train_tokenizer(PHOTOS, out, TokenizerFolder(out).options(), resume=True)
    assert json.loads((out / "results.json").read_text()) == before
