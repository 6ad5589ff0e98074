"""Supervised training: its loss written out, timm's Mixup, distillation, learning, resumes and exports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from scipy import stats
from timm.data.mixup import Mixup
from torch import nn

from helpers.classifiers import CLASSES, NETWORKS, PLAIN, batch_of, options_of, task_of
from helpers.training import check_resumes
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.rng import Purpose, sample_keys, uniform
from lamina.data.loading.loader import TrainLoader
from lamina.data.options import DataOptions
from lamina.data.sources import ArraySource
from lamina.encoder.build import build_vit, wrap_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.build import build_fusion
from lamina.fusion.options import FusionOptions
from lamina.interop.export_classifier import class_names, export_supervised, load_supervised
from lamina.interop.load import load_encoder
from lamina.supervised.classifier import Supervised
from lamina.supervised.labels import check_labels
from lamina.supervised.mixup import draw, placed
from lamina.supervised.normalized import Standardised
from lamina.supervised.options import SupervisedOptions
from lamina.train.loop import fit
from lamina.train.optim_options import OptimOptions
from lamina.train.options import TrainOptions

torch.set_num_threads(1)
MFF = FusionOptions(layers=(0, 1, 3))
FUSIONS = [PLAIN, *(FusionOptions(layers=(0, 2, 3), projection=p, pooling=q) for p in ("none", "linear", "mlp") for q in ("average", "attention"))]  # fmt: skip
# Without a class token there is no pool "cls", and the distilled network, which has two, takes no other: see
# test_what_does_not_fit_is_refused.
NETWORKS_AND_POOLS = [
    (network, pool)
    for network in NETWORKS
    for pool in ("cls", "mean")
    if (network, pool) not in {("no-cls", "cls"), ("distilled", "mean")}
]
UNMIXED = SupervisedOptions(mixup=0.0, cutmix=0.0, smoothing=0.0)


def key_where(cut: bool, options: SupervisedOptions) -> torch.Tensor:
    """A key by which batches of 16 x 24 px are cut (or not), and neither nearly nothing nor nearly all."""
    for seed in range(200):
        key = sample_keys(seed, 0, torch.tensor([0]))
        numbers = draw(key, options)
        share = float(placed(numbers, (16, 24), options).share)
        if bool(numbers.switch < options.switch_prob) is cut and 0.2 < share < 0.8:
            return key
    raise AssertionError("no such key")


# The loss


@pytest.mark.parametrize("cut", [False, True], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_loss_equals_its_equations_written_out(cut: bool, pool: str) -> None:
    options = SupervisedOptions(pool=pool)
    task = task_of(options_of("cls"), MFF, options)
    key = key_where(cut, options)
    plain = batch_of(5)
    batch = Batch(plain.images, torch.cat([key, key.new_tensor([1, 2, 3, 4])]), None, plain.labels)
    loss = task(batch)["loss"]

    u = uniform(key, 4, Purpose.MIX)[0].tolist()  # whether, which, and the centre of the box
    numbers = draw(key, options)
    x, kept = batch.images.double() / 255, float(numbers.cutmix if cut else numbers.mixup)
    mixed = kept * x + (1 - kept) * x.flip(0)
    if cut:
        h, w = int(16 * (1 - kept) ** 0.5), int(24 * (1 - kept) ** 0.5)
        cy, cx = int(16 * u[2]), int(24 * u[3])
        top, bottom = max(cy - h // 2, 0), min(cy + (h + 1) // 2, 16)
        left, right = max(cx - w // 2, 0), min(cx + (w + 1) // 2, 24)
        mixed = x.clone()
        mixed[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
        kept = 1 - (bottom - top) * (right - left) / (16 * 24)
    mean, std = (
        torch.tensor(v).double().view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    smoothed = torch.full((5, CLASSES), 0.1 / CLASSES).double()
    smoothed[torch.arange(5), batch.labels] += 0.9
    targets = kept * smoothed + (1 - kept) * smoothed.flip(0)

    task.double()
    taps: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *said: taps.append(said[2])) for block in task.encoder.vit.blocks
    ]
    task.encoder.vit.forward_features((mixed - mean) / std)
    for hook in hooks:
        hook.remove()
    weights = task.fusion.pool.logits.softmax(0)
    first, second = task.fusion.projections
    fused = weights[0] * first(taps[0]) + weights[1] * second(taps[1]) + weights[2] * taps[3]
    tokens = F.layer_norm(fused, (32,), task.encoder.norm.weight, task.encoder.norm.bias, 1e-6)
    pooled = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(1)
    logits = pooled @ task.head.weight.T + task.head.bias
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    torch.testing.assert_close(loss.double(), -(targets * log_p).sum(1).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("cut", [False, True], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("alphas", [(0.8, 1.0), (0.8, 0.0), (0.0, 1.0)])
def test_mixing_equals_timm_for_the_same_numbers(
    cut: bool, alphas: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SupervisedOptions(mixup=alphas[0], cutmix=alphas[1])
    batch = batch_of(6, size=(20, 32))
    for seed in range(30):
        key = sample_keys(seed, 7, torch.tensor([3]))
        numbers = draw(key, options)
        if all(alphas) and bool(numbers.switch < 0.5) is not cut:
            continue
        chosen = cut if all(alphas) else not alphas[0]
        rand = iter([float(numbers.mixed), float(numbers.switch)])
        centre = iter([float(numbers.top), float(numbers.left)])
        kept = float(numbers.cutmix if chosen else numbers.mixup)
        with monkeypatch.context() as patched:
            patched.setattr(np.random, "rand", lambda *_, rand=rand: next(rand))
            patched.setattr(np.random, "beta", lambda *_, kept=kept, **__: kept)
            patched.setattr(
                np.random,
                "randint",
                lambda low, high, centre=centre, **_: int(low + next(centre) * (high - low)),
            )
            peer = Mixup(*alphas, label_smoothing=0.1, num_classes=CLASSES)
            images, targets = peer(batch.images / 255, batch.labels)
        task_like = Supervised.mix(
            _Mixing(options), Batch(batch.images, key.expand(6), None, batch.labels), batch.labels
        )
        torch.testing.assert_close(task_like[0], images, rtol=0, atol=2e-7)
        torch.testing.assert_close(task_like[1], targets, rtol=0, atol=2e-7)


class _Mixing:
    """What `Supervised.mix` asks of its module."""

    training, n_classes, several = True, CLASSES, False

    def __init__(self, options: SupervisedOptions) -> None:
        self.options = options


def test_odd_batches_leave_the_middle_as_it_is() -> None:
    options = SupervisedOptions(smoothing=0.0)
    task, batch = task_of(options_of("cls"), options=options), batch_of(5)
    images, targets = task.mix(batch, batch.labels)
    torch.testing.assert_close(images[2], batch.images[2] / 255)
    torch.testing.assert_close(targets[2], F.one_hot(batch.labels[2], CLASSES).float())
    assert not torch.allclose(images[0], batch.images[0] / 255)
    alone = task.mix(next(batch.split(1)), batch.labels[:1])
    torch.testing.assert_close(alone[0], batch.images[:1] / 255)


@pytest.mark.parametrize("alpha", [0.05, 0.8, 1.0, 3.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    options = SupervisedOptions(mixup=alpha, cutmix=alpha)
    found = [draw(key[None], options) for key in sample_keys(1, 0, torch.arange(250))]
    for name in ("mixup", "cutmix"):
        shares = [float(getattr(numbers, name)) for numbers in found]
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    for name in ("mixed", "switch", "top", "left"):
        assert stats.kstest([float(getattr(numbers, name)) for numbers in found], "uniform").pvalue > 1e-3


def test_a_share_of_batches_is_mixed() -> None:
    options = SupervisedOptions(mix_prob=0.3)
    shares = [
        float(placed(draw(k[None], options), (16, 24), options).share)
        for k in sample_keys(2, 0, torch.arange(200))
    ]
    assert 0.6 < np.mean([share == 1 for share in shares]) < 0.8


def test_evaluation_neither_mixes_nor_smooths() -> None:
    task, batch = task_of(options_of("cls"), MFF).eval(), batch_of(8)
    terms = task(batch)
    logits = task.logits(batch.images)
    torch.testing.assert_close(terms["loss"], F.cross_entropy(logits, batch.labels))
    assert terms["top1"] == (logits.argmax(1) == batch.labels).float().mean()
    assert set(task.train()(batch)) == {"loss"}
    assert set(task_of(options_of("cls"), options=UNMIXED)(batch)) == {"loss", "top1"}


@pytest.mark.parametrize(("network", "pool"), NETWORKS_AND_POOLS)
@pytest.mark.parametrize("fusion", FUSIONS, ids=lambda f: f"{f.kind}-{f.projection}-{f.pooling}")
def test_gradients_reach_every_parameter(network: str, pool: str, fusion: FusionOptions) -> None:
    task = task_of(options_of(network), fusion, SupervisedOptions(pool=pool))
    terms = task(batch_of())
    assert terms["loss"].isfinite()
    terms["loss"].backward()
    for name, parameter in task.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            # A softmax does not see what all of its keys have in common.
            assert parameter.grad.any() or name.endswith("k.bias"), name


# Labels


def test_labels_are_checked() -> None:
    task, batch = task_of(options_of("cls")), batch_of()
    for labels, sentence in (
        (None, "needs labels"),
        (batch.labels * 0 - 1, "without a label"),
        (batch.labels + 5, "among classes 0 to 4"),
    ):
        with pytest.raises(LaminaError, match=sentence):
            task(Batch(batch.images, batch.keys, None, labels))
        with pytest.raises(LaminaError, match=sentence):
            check_labels(None if labels is None else labels.tolist(), CLASSES)
    check_labels(batch.labels.tolist(), CLASSES)


def test_where_a_check_would_wait_a_bad_label_makes_the_loss_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lamina.supervised.classifier.check_range", lambda *_: None)
    task, batch = task_of(options_of("cls")), batch_of()
    assert task(batch)["loss"].isfinite()
    for bad in (-1, CLASSES, 10**9):
        labels = torch.where(torch.arange(6) == 3, bad, batch.labels)
        assert task(Batch(batch.images, batch.keys, None, labels))["loss"].isnan()


# Distillation


class _Teacher(nn.Module):
    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 24, classes), nn.Dropout(0.5))
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return self.net(images - 0.5)


@pytest.mark.parametrize("fusion", [PLAIN, MFF], ids=["none", "mff"])
def test_distillation_is_the_mean_of_two_losses(fusion: FusionOptions) -> None:
    task = task_of(options_of("distilled"), fusion, teacher=_Teacher())
    batch, teacher = batch_of(), task.teacher.net
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    terms = task.train()(batch)
    images, targets = task.mix(batch, batch.labels)
    torch.testing.assert_close(teacher.seen[-1], images)
    tokens = task.fusion(task.encoder(images, task.fusion.layers), task.encoder.norm)
    own, its = task.head(tokens[:, 0]).log_softmax(1), task.head_dist(tokens[:, 1]).log_softmax(1)
    said = (images.flatten(1) - 0.5) @ before["net.1.weight"].T + before["net.1.bias"]  # no dropout
    labels, taught = -(targets * own).sum(1).mean(), -its[torch.arange(6), said.argmax(1)].mean()
    torch.testing.assert_close(terms["loss_labels"], labels)
    torch.testing.assert_close(terms["loss_teacher"], taught)
    torch.testing.assert_close(terms["loss"], 0.5 * labels + 0.5 * taught)

    terms["loss"].backward()
    torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 0.1).step()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not any("teacher" in name for name in task.state_dict())
    assert task.teacher_identity.name == "_Teacher"


def test_a_distilled_network_is_timm_s() -> None:
    """With and without a teacher: heads apart in training, their mean otherwise."""
    encoder = options_of("distilled")
    task, batch = task_of(encoder, options=UNMIXED, teacher=_Teacher()), batch_of()
    peer = timm.create_model(
        encoder.name, img_size=(16, 24), patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=CLASSES
    )
    state = {
        **task.encoder.timm_state(),
        **{k: v for k, v in task.state_dict().items() if k.startswith("head")},
    }
    peer.load_state_dict(state, strict=True)
    peer.set_distilled_training(True)
    pixels = task.encoder.normalise(batch.images)
    own, its = peer.train()(pixels)
    terms = task.train()(batch)
    torch.testing.assert_close(terms["loss_labels"], F.cross_entropy(own, batch.labels))
    torch.testing.assert_close(
        terms["loss_teacher"], F.cross_entropy(its, task.teacher.net(batch.images / 255).argmax(1))
    )
    torch.testing.assert_close(task.logits(batch.images), (own + its) / 2)
    task.teacher = None
    torch.testing.assert_close(task(batch)["loss"], F.cross_entropy((own + its) / 2, batch.labels))


def test_a_teacher_has_its_own_normalisation() -> None:
    teacher = Standardised(nn.Flatten(), (0.5, 0.25, 0.0), (0.5, 1.0, 2.0))
    images = batch_of().images
    x = images.float()
    expected = torch.stack([2 * x[:, 0] / 255 - 1, x[:, 1] / 255 - 0.25, x[:, 2] / 510], 1)
    torch.testing.assert_close(teacher(images), expected.flatten(1))


# What does not fit


def test_what_does_not_fit_is_refused() -> None:
    cases = [
        ("no class token", lambda: task_of(options_of("no-cls"), options=SupervisedOptions(pool="cls"))),
        ("take pool cls", lambda: task_of(options_of("distilled"), options=SupervisedOptions(pool="mean"))),
        ("no distillation token", lambda: task_of(options_of("cls"), teacher=_Teacher())),
        ("hide drop", lambda: task_of(options_of("cls", hide="replace"))),
        ("n_classes is 0", lambda: task_of(options_of("cls"), classes=0)),
        ("smoothing is 1", lambda: SupervisedOptions(smoothing=1.0)),
        ("mixup is -1", lambda: SupervisedOptions(mixup=-1.0)),
        ("mix_prob is 2", lambda: SupervisedOptions(mix_prob=2.0)),
        (
            r"logits \(6, 7\), the head \(6, 5\)",
            lambda: task_of(options_of("distilled"), teacher=_Teacher(7))(batch_of()),
        ),
    ]
    for sentence, build in cases:
        with pytest.raises(LaminaError, match=sentence) as error:
            build()
        assert "\n" not in str(error.value)
    encoder = wrap_vit(build_vit(options_of("cls")), options_of("cls"))
    for fusion in (build_fusion(PLAIN, 32, 6), build_fusion(FusionOptions(kind="mix"), 32, 4, 2)):
        with pytest.raises(LaminaError):
            Supervised(encoder, fusion, CLASSES)


# Learning


def _tinted(n: int, seed: int) -> Batch:
    """Noise with one bright channel, which is the label, or none."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (n,), generator=generator)
    images = torch.rand(n, 3, 16, 16, generator=generator) * 0.5
    for image, label in zip(images, labels.tolist(), strict=True):
        image[label : label + 1] += 0.5
    return Batch(images, sample_keys(seed, 0, torch.arange(n)), None, labels)


@pytest.mark.parametrize("fusion", [PLAIN, MFF], ids=["none", "mff"])
@pytest.mark.parametrize("shuffled", [False, True], ids=["true", "shuffled"])
def test_it_learns_labels_that_mean_something(fusion: FusionOptions, shuffled: bool) -> None:
    task = task_of(options_of("cls", image_size=(16, 16)), fusion, classes=4)
    optimiser = torch.optim.AdamW([p for p in task.parameters() if p.requires_grad], 3e-3)

    def data(n: int, seed: int) -> Batch:
        batch = _tinted(n, seed)
        return Batch(batch.images, batch.keys, None, batch.labels.roll(1) if shuffled else batch.labels)

    for step in range(50):
        task(data(32, step))["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
    held_out = task.eval()(data(512, 999))
    if shuffled:  # independent of the image: whoever does better has seen the label
        assert float(held_out["loss"].detach()) > 1.37  # log 4 = 1.386
        assert 0.15 < float(held_out["top1"]) < 0.35
    else:
        assert float(held_out["top1"]) > 0.95


# Runs


@pytest.mark.parametrize("micro", [None, 3])
@pytest.mark.parametrize("network", ["cls", "distilled"])
def test_resume_is_exact(tmp_path: Path, micro: int | None, network: str) -> None:
    images = batch_of(20)
    source = ArraySource(images.images, [str(i) for i in range(20)], images.labels.tolist())
    data = DataOptions(auto_augment="rand-m9-mstd0.5-inc1", erase=0.25, workers=0)
    settings = TrainOptions(
        max_steps=5,
        batch_size=5,
        micro_batch_size=micro,
        device="cpu",
        log_every_steps=2,
        checkpoint_every_steps=1,
        keep_checkpoints=9,
    )

    def train(folder: Path, resume: bool = False) -> None:
        loader = TrainLoader(source, data, 0, 5, image_size=(16, 24))
        task = task_of(
            options_of(network, drop_path=0.2), MFF, teacher=_Teacher() if network == "distilled" else None
        )
        fit(task, loader, OptimOptions(base_lr=0.02, warmup_epochs=0.5), settings, folder, resume=resume)

    train(tmp_path / "whole")
    check_resumes(tmp_path / "whole", 5, lambda run: train(run, resume=True), at=(1, 3))


def test_mixing_leaves_global_generators_alone_and_depends_on_keys_alone() -> None:
    task, batch = task_of(options_of("cls")), batch_of()
    torch.manual_seed(1)
    state, of_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = task.mix(batch, batch.labels)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == of_numpy).all()  # noqa: NPY002
    torch.manual_seed(2)
    assert all(map(torch.equal, first, task.mix(batch, batch.labels)))
    other = Batch(batch.images, batch.keys + 1, None, batch.labels)
    assert not torch.equal(first[0], task.mix(other, batch.labels)[0])
    task(Batch(batch.images, None, None, batch.labels))  # without keys: torch's own generator


# Exports


@pytest.mark.parametrize(("network", "pool"), NETWORKS_AND_POOLS)
def test_plain_classifiers_are_timm_s(network: str, pool: str, tmp_path: Path) -> None:
    options = options_of(network)
    task = task_of(options, options=SupervisedOptions(pool=pool)).eval()
    names = [f"kind {i}" for i in range(CLASSES)]
    files = export_supervised(task, options, PLAIN, tmp_path / "folder", class_names=names, plain=True)
    assert files.fusion is None
    config = json.loads(files.config.read_text())
    images = batch_of().images
    arguments = {"num_classes": config["num_classes"], **config["model_args"]}  # as on timm's hub
    peer = timm.create_model(config["architecture"], **arguments).eval()
    peer.load_state_dict(load_file(files.weights), strict=True)
    mean, std = (torch.tensor(config["pretrained_cfg"][k]).view(3, 1, 1) for k in ("mean", "std"))
    expected = task.logits(images)
    torch.testing.assert_close(peer((images / 255 - mean) / std), expected, rtol=1e-5, atol=1e-6)
    local = timm.create_model(f"local-dir:{tmp_path / 'folder'}", pretrained=True).eval()
    torch.testing.assert_close(local((images / 255 - mean) / std), expected, rtol=1e-5, atol=1e-6)
    assert local.pretrained_cfg["label_names"] == names
    assert torch.equal(load_supervised(tmp_path / "folder").logits(images), expected)
    assert class_names(files.weights) == tuple(names)


def test_a_class_token_model_needs_no_more_than_its_name(tmp_path: Path) -> None:
    options = EncoderOptions(name="vit_tiny_patch16_224", depth=None, weight_init="timm")
    task = task_of(options).eval()
    files = export_supervised(task, options, None, tmp_path / "x.safetensors")
    peer = timm.create_model("vit_tiny_patch16_224", num_classes=CLASSES).eval()
    peer.load_state_dict(load_file(files.weights), strict=True)
    images = batch_of(2, size=(224, 224)).images
    torch.testing.assert_close(
        peer(task.encoder.normalise(images)), task.logits(images), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("fusion", FUSIONS[1:], ids=lambda f: f"{f.projection}-{f.pooling}")
def test_fused_classifiers_keep_their_fusion(network: str, fusion: FusionOptions, tmp_path: Path) -> None:
    options, out = options_of(network), tmp_path / "x.safetensors"
    task, images = task_of(options, fusion).eval(), batch_of().images
    with pytest.raises(LaminaError, match="plain timm cannot compute"):
        export_supervised(task, options, fusion, out, plain=True)
    assert not out.exists()
    files = export_supervised(task, options, fusion, out, step=7)
    loaded = load_supervised(out)
    assert torch.equal(loaded.logits(images), task.logits(images))
    assert loaded.logits(images).std() > 1e-3
    assert not loaded.training
    # Nobody takes the rest for a classifier without it.
    names = set(load_file(files.weights))
    assert not any(name.startswith("head") for name in names)
    assert "architecture" not in json.loads(files.config.read_text())
    backbone = load_encoder(out)
    assert backbone.kinds == ("last", "fused")
    tokens = task.fusion(task.encoder(images, task.fusion.layers), task.encoder.norm)
    torch.testing.assert_close(backbone(images, "fused").patches, tokens[:, task.encoder.n_prefix :])


def test_decay_is_folded(tmp_path: Path) -> None:
    options = options_of("cls", residual_decay=0.6)
    for fusion in (PLAIN, MFF):
        task = task_of(options, fusion).eval()
        images, out = batch_of().images, tmp_path / f"{fusion.kind}.safetensors"
        export_supervised(task, options, fusion, out)
        torch.testing.assert_close(
            load_supervised(out).logits(images), task.logits(images), rtol=1e-3, atol=1e-3
        )


def test_exports_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    options = options_of("cls")
    task, fused = task_of(options), task_of(options, MFF)
    several = options_of("cls", class_tokens=3)
    cases = [
        ("not those of", lambda: export_supervised(task, options, MFF, tmp_path / "a")),
        ("not those of", lambda: export_supervised(fused, options, None, tmp_path / "a")),
        (
            "2 class names for 5",
            lambda: export_supervised(task, options, None, tmp_path / "a", class_names=["x", "y"]),
        ),
        (
            "mean of several",
            lambda: export_supervised(task_of(several), several, None, tmp_path / "a", plain=True),
        ),
        (r"\.safetensors", lambda: export_supervised(task, options, None, tmp_path / "a.pth")),
        ("no weights file", lambda: load_supervised(tmp_path / "none")),
    ]
    for sentence, attempt in cases:
        with pytest.raises(LaminaError, match=sentence):
            attempt()
    assert not list(tmp_path.iterdir())
    broken = tmp_path / "b.safetensors"
    broken.write_bytes(b"no tensors")
    with pytest.raises(LaminaError, match="damaged"):
        load_supervised(broken)
