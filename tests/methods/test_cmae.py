"""CMAE: its loss written out, its targets' pace, its two views, its negatives over ranks."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import lamina
from helpers.cmae import DEPTH, OPTIONS, WIDTH, batch_of, rank_equals_whole, task_of, vit
from helpers.options import as_read
from helpers.ranks import run_ranks
from helpers.training import check_resumes
from lamina.cmae.cmae import CMAE
from lamina.cmae.options import CMAEOptions
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.frozen import eval_mode
from lamina.core.patches import take
from lamina.core.rng import sample_keys
from lamina.data.augment.second_view import ShiftedViews
from lamina.data.loading.loader import TrainLoader, eval_batches
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.fusion.layer_mix import LayerMix
from lamina.fusion.mff import MultiLevelFusion
from lamina.methods import crossmae, simmim

PHOTOS = "sample:photos?crop=18&most=40"


def affine(linear, x):
    return x @ linear.weight.T + (0 if linear.bias is None else linear.bias)


def normed(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def block(b, x, heads=2):
    q, k, v = affine(b.attn.qkv, normed(b.norm1, x)).chunk(3, -1)
    d = q.shape[-1] // heads
    parts = [slice(h * d, (h + 1) * d) for h in range(heads)]
    mixed = [(q[:, p] @ k[:, p].T / d**0.5).softmax(-1) @ v[:, p] for p in parts]
    x = x + affine(b.attn.proj, torch.cat(mixed, -1))
    inner = affine(b.mlp.fc1, normed(b.norm2, x))
    return x + affine(b.mlp.fc2, 0.5 * inner * (1 + torch.erf(inner / 2**0.5)))


def mlp(net, x):
    return affine(net[3], normed(net[1], affine(net[0], x)).relu())


@pytest.mark.parametrize("fusion", [None, lambda: MultiLevelFusion(WIDTH, DEPTH, "all")])
def test_the_loss_is_its_equations(fusion):
    """Pixel loss + 2 T * InfoNCE(q, k) with T = 0.07, every image's key a negative for the others."""
    task, batch = task_of(fusion and fusion()), batch_of()
    mim, t = task.mim, OPTIONS.temperature
    mask = mim.mask(batch)
    latents = mim.fusion(mim.encode(batch.images, mask), mim.encoder.norm)
    decoder, queries, keys = task.feature_decoder, [], []
    for latent, hidden, view in zip(latents, mask, batch.view, strict=True):
        prefix, *seen = affine(decoder.embed, latent)
        seen = iter(seen)
        x = torch.stack([decoder.mask_token[0, 0] if h else next(seen) for h in hidden.tolist()])
        x = torch.cat([prefix[None], x + decoder.positions[0]])
        for b in decoder.blocks:
            x = block(b, x)
        mean = affine(decoder.head, normed(decoder.norm, x))[1:].mean(0)
        q = mlp(task.predictor, mlp(task.projector, mean))
        queries.append(q / q.norm())
        net = task.target_encoder.vit
        x = net.patch_embed(task.target_encoder.normalise(view[None]))[0] + net.pos_embed[0, 1:]
        x = torch.cat([net.cls_token[0] + net.pos_embed[0, :1], x])
        for b in net.blocks:
            x = block(b, x)
        k = mlp(task.target_projector, x[1:].mean(0))
        keys.append(k / k.norm())
    logits = torch.stack(queries) @ torch.stack(keys).T / t
    contrast = -2 * t * torch.stack([logits[i].log_softmax(0)[i] for i in range(4)]).mean()
    terms = task(batch)
    pixels = mim(batch)["loss"]
    assert float(terms["contrast_loss"]) == pytest.approx(float(contrast.detach()), rel=1e-5)
    torch.testing.assert_close(terms["pixel_loss"], pixels.detach(), rtol=1e-12, atol=0)
    assert float(terms["loss"].detach()) == pytest.approx(float((pixels + contrast).detach()), rel=1e-5)


def test_gradients_reach_what_is_trained_and_nothing_else():
    task = task_of(MultiLevelFusion(WIDTH, DEPTH, "all"))
    task(batch_of())["loss"].backward()
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert not [name for name in trained if name.startswith("target_")]
    reached = {name for name, p in task.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached == trained


def test_targets_follow_in_after_step_alone():
    task = task_of(options=CMAEOptions(hidden=20, out=12, momentum=0.9))
    before = {name: p.clone() for name, p in task.target_encoder.named_parameters()}
    with torch.no_grad():
        for parameter in task.encoder.parameters():
            parameter += 1
    task(batch_of())["loss"].backward()
    task(batch_of())["loss"].backward()  # a second micro-batch moves nothing
    assert all(torch.equal(before[n], p) for n, p in task.target_encoder.named_parameters())
    expected = {n: before[n] for n in before}
    online = dict(task.encoder.named_parameters())
    for step in (1, 2, 3):
        task.after_step(step)
        expected = {n: 0.9 * expected[n] + 0.1 * online[n] for n in expected}
    for name, parameter in task.target_encoder.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-12, atol=1e-12)


def test_the_target_sees_whole_images_without_drop_path():
    task = task_of()
    assert task.training
    assert not task.target_encoder.training
    view = batch_of().view
    assert torch.equal(task.key(view), task.key(view))


def test_the_views_are_windows_near_each_other():
    """Without changes of colour, what both windows show is the same pixels."""
    crop = torch.arange(3 * 32 * 40).reshape(3, 32, 40).float() / 4000
    views = ShiftedViews((24, 30), 7, (0, 0, 0, 0), 0, 0, 0)
    torch.manual_seed(0)
    shifts = set()
    for _ in range(300):
        draws = torch.rand(views.n_draws).tolist()
        one, other = views(crop, draws)
        assert one.shape == other.shape == (3, 24, 30)
        places = [divmod(round(float(v[0, 0, 0]) * 4000), 40) for v in (one, other)]
        down, across = places[1][0] - places[0][0], places[1][1] - places[0][1]
        shifts |= {("down", down), ("across", across)}
        assert 0 <= down <= 7
        assert 0 <= across <= 7
        assert torch.equal(one[:, down:, across:], other[:, : 24 - down, : 30 - across])
    assert {("down", 0), ("down", 7), ("across", 0), ("across", 7)} <= shifts
    # By default one pixel less than there is room: 31 for 224 in 256.
    crop = torch.arange(256.0 * 256).view(1, 256, 256)
    last = ShiftedViews((224, 224), None, (0, 0, 0, 0), 0, 0, 0)(crop, [0.999] * 13)
    assert float(last[1][0, 0, 0] - last[0][0, 0, 0]) == 31 * 256 + 31
    with pytest.raises(LaminaError, match="larger crop"):
        views(torch.rand(3, 20, 40), [0.0] * 13)


def test_colours_of_the_second_view_alone_change():
    crop = torch.randint(0, 256, (3, 20, 20), dtype=torch.uint8)
    one, other = ShiftedViews((20, 20), 0)(crop, [0.0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.5, 0, 0, 0.5])
    assert torch.equal(one, crop)
    assert torch.equal(other[0], other[1])  # grey
    assert other.dtype == torch.uint8
    assert float(other.float().std()) < 0.7 * float(crop.float().std())  # blurred
    with pytest.raises(LaminaError, match="1 or 3 channels"):
        ShiftedViews((20, 20), 0)(torch.rand(5, 20, 20), [0.5] * 13)


@pytest.mark.parametrize("workers", [2])
def test_views_do_not_depend_on_the_workers(workers):
    source = open_source(PHOTOS)
    loaders = [
        TrainLoader(source, DataOptions(second_view="cmae", workers=n), 0, 8, image_size=(16, 16))
        for n in (0, workers)
    ]
    for one, other in zip(*(loader.batches(0, 3) for loader in loaders), strict=True):
        assert one.images.shape == one.view.shape == (8, 3, 16, 16)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.view, other.view)
        assert not torch.equal(one.images, one.view)


def test_what_does_not_fit_is_refused():
    with pytest.raises(LaminaError, match="second view"):
        task_of()(batch_of().images)
    with pytest.raises(LaminaError, match="one latent of the visible"):
        CMAE(simmim(vit(), unit_px=8))
    with pytest.raises(LaminaError, match="one latent of the visible"):
        CMAE(crossmae(vit(), LayerMix(WIDTH, DEPTH, 2), decoder_width=16, decoder_depth=2, decoder_heads=2))


def train(out: Path, fusion="mff", **named):
    options = {
        "encoder.width": WIDTH,
        "encoder.depth": DEPTH,
        "encoder.heads": 2,
        "decoder.width": 16,
        "decoder.depth": 1,
        "decoder.heads": 2,
        "fusion.layers": "all",
        "cmae.hidden": 20,
        "cmae.out": 12,
        "train.keep_checkpoints": 100,
        "train.checkpoint_every_seconds": None,
        "train.log_every_steps": 5,
    }
    sizes = {"image_size": 16, "patch_size": 4, "batch_size": 32, "base_lr": 8e-3, "workers": 0}
    options = as_read("cmae-small", options, fusion)
    return lamina.pretrain(PHOTOS, out, "cmae-small", options=options, fusion=fusion, **(sizes | named))


@pytest.mark.parametrize("fusion", ["none", "mff"])
def test_a_run_beats_the_best_constant_and_guessing(tmp_path, fusion):
    train(tmp_path / "run", fusion, epochs=5.0)
    method, recipe = lamina.load_method(tmp_path / "run")
    held_out = next(eval_batches(open_source(PHOTOS, "val"), (16, 16), 3, 200, 0, recipe.data))
    batch = Batch(held_out.images, sample_keys(1, 0, torch.arange(len(held_out))))
    with torch.no_grad():
        prediction = method.predict(batch)
        target = take(method.target(batch.images)[0], prediction.where)
        loss = float(method.loss(prediction.values, target).mean())
    assert loss < 0.97 * float((target - target.flatten(0, 1).mean(0)).square().mean())
    rows = lamina.runs.run.Run(tmp_path / "run").metrics()
    guessing = 2 * 0.07 * float(torch.tensor(32.0).log())
    assert rows[-1]["contrast_loss"] < 0.8 * guessing
    assert rows[-1]["loss"] == pytest.approx(rows[-1]["pixel_loss"] + rows[-1]["contrast_loss"], rel=1e-4)
    assert (tmp_path / "run" / "report.html").is_file()
    assert "fusion_weights" in rows[-1] or fusion == "none"


def test_a_run_goes_on_exactly_with_its_targets(tmp_path):
    whole = tmp_path / "whole"
    train(whole, max_steps=5, checkpoint_every_steps=2)
    check_resumes(whole, 5, lambda run: lamina.pretrain(PHOTOS, run, resume=True), at=(2,))
    state = load_file(whole / "checkpoints" / "step-5" / "model.safetensors")
    assert any(name.startswith("target_encoder.") for name in state)
    assert len(lamina.load_encoder(whole)(torch.rand(1, 3, 16, 16)).patches[0]) == 16


def test_two_ranks_equal_one(tmp_path):
    """Negatives of all ranks: loss and reduced gradients are those of the whole batch in one process."""
    run_ranks(rank_equals_whole, [], tmp_path)


def test_evaluation_mode_comes_back():
    task = task_of()
    with eval_mode(task):
        assert not task.training
    assert task.training
    assert not task.target_encoder.training
