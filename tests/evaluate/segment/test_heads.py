"""Heads against published implementations with copied weights, and what they make of other networks."""

import pytest
import torch
from torch import nn

from helpers.dense_data import CLASSES, toy_backbone, toy_encoder
from helpers.runs import NAMES
from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.data.dense.sources import IGNORE
from lamina.encoder.encoder import Encoder
from lamina.evaluate.segment.dpt import DPT
from lamina.evaluate.segment.feature_maps import Taps, choose_blocks, spread_blocks
from lamina.evaluate.segment.head_options import DPTOptions, LinearHeadOptions, UperOptions
from lamina.evaluate.segment.linear import LinearHead
from lamina.evaluate.segment.pyramid import Pyramid, octaves
from lamina.evaluate.segment.segmenter import Segmenter, pixel_loss
from lamina.evaluate.segment.upernet import UPerHead, UperNet

SMALL = UperOptions(channels=16, aux_channels=8, dropout=0.0)


def moved(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight and statistic away from where it starts."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(0.5 + noise if name.endswith("running_var") else tensor + 0.2 * (noise - 0.5))
    return module


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Weights of one module into another whose tensors come in the same order."""
    own, other = target.state_dict(), source.state_dict()
    assert [t.shape for t in own.values()] == [t.shape for t in other.values()]
    target.load_state_dict(dict(zip(own, other.values(), strict=True)))


def random_maps(channels, sides, batch=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, c, *side, generator=generator) for c, side in zip(channels, sides, strict=True)
    ]


def test_blocks_are_those_of_beit_and_dpt():
    assert spread_blocks(12, (3, 5, 7, 11)) == (3, 5, 7, 11)
    assert spread_blocks(24, (3, 5, 7, 11)) == (7, 11, 15, 23)
    assert spread_blocks(24, (2, 5, 8, 11)) == (5, 11, 17, 23)
    assert spread_blocks(4, (2, 5, 8, 11)) == (0, 1, 2, 3)
    assert all(spread_blocks(depth, (3, 5, 7, 11))[-1] == depth - 1 for depth in range(1, 40))
    with pytest.raises(LaminaError, match="0 to 11"):
        choose_blocks(12, (3, 5, 7, 12), (3, 5, 7, 11))
    with pytest.raises(LaminaError, match="give 4, the lowest first"):
        choose_blocks(12, (3, 5, 11), (3, 5, 7, 11))


@pytest.mark.parametrize("training", [False, True])
def test_upernet_is_transformers_upernet(training):
    """UperNetHead and UperNetFCNHead on the same maps with the same weights."""
    upernet = pytest.importorskip(
        "transformers.models.upernet.modeling_upernet", reason="transformers is not installed (extra: bench)"
    )
    from transformers import UperNetConfig

    config = UperNetConfig(
        hidden_size=12, num_labels=5, pool_scales=[1, 2, 3, 6], auxiliary_channels=7, auxiliary_num_convs=1
    )
    channels = [6, 8, 10, 14]
    theirs = moved(upernet.UperNetHead(config, channels)).train(training)
    ours = UPerHead(channels, 12, 5, dropout=0.0).train(training)
    parts = [
        (theirs.psp_modules, ours.pools),
        (theirs.bottleneck, ours.pooled),
        (theirs.lateral_convs, ours.lateral),
        (theirs.fpn_convs, ours.smooth),
        (theirs.fpn_bottleneck, ours.fuse),
        (theirs.classifier, ours.classifier),
    ]
    for theirs_part, ours_part in parts:
        copy_in_order(theirs_part, ours_part)
    maps = random_maps(channels, [(28, 40), (14, 20), (7, 10), (4, 5)])
    torch.testing.assert_close(ours(maps), theirs(maps), rtol=1e-5, atol=1e-5)

    auxiliary = moved(upernet.UperNetFCNHead(config, channels, in_index=2)).train(training)
    width = toy_backbone().encoder.width
    net = UperNet(toy_backbone().encoder, 5, UperOptions(channels=12, aux_channels=7, dropout=0.0))
    assert [tuple(t.shape[1:]) for t in net.aux[0][0].parameters()] == [(width, 3, 3)]
    net.aux[0][0] = nn.Conv2d(channels[2], 7, 3, padding=1, bias=False)
    copy_in_order(auxiliary, net.aux)
    torch.testing.assert_close(net.aux.train(training)(maps[2]), auxiliary(maps), rtol=1e-5, atol=1e-5)


def test_the_pyramid_is_beits():
    """fpn1 to fpn4 of transformers' BeitForSemanticSegmentation, with their weights (fpn3 does nothing)."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra: bench)")
    from transformers import BeitConfig, BeitForSemanticSegmentation

    config = BeitConfig(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=8,
        image_size=64,
        out_indices=[1, 2, 3, 4],
        num_labels=2,
    )
    theirs = moved(BeitForSemanticSegmentation(config)).eval()
    neck = getattr(theirs, "fpn", theirs)  # a module of its own in newer transformers
    ours = Pyramid(8, 16).eval()
    copy_in_order(neck.fpn1, ours.levels[0])
    copy_in_order(neck.fpn2, ours.levels[1])
    maps = random_maps([8] * 4, [(6, 8)] * 4)
    expected = [neck.fpn1(maps[0]), neck.fpn2(maps[1]), maps[2], neck.fpn4(maps[3])]
    for got, want in zip(ours(maps), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("patch", "grid", "sides"),
    [
        (16, (32, 32), [(128, 128), (64, 64), (32, 32), (16, 16)]),
        (14, (37, 37), [(148, 148), (74, 74), (37, 37), (19, 19)]),
        (8, (14, 20), [(28, 40), (14, 20), (7, 10), (4, 5)]),
        (4, (5, 5), [(5, 5), (3, 3), (2, 2), (1, 1)]),
        (32, (3, 4), [(24, 32), (12, 16), (6, 8), (3, 4)]),
    ],
)
def test_pyramids_have_strides_of_4_to_32_px(patch, grid, sides):
    maps = Pyramid(4, patch)(random_maps([4] * 4, [grid] * 4))
    assert [tuple(each.shape[-2:]) for each in maps] == sides
    assert octaves(14, 4) == octaves(16, 4) == 2


def test_a_map_pooled_to_one_value_needs_two_images():
    net = UperNet(toy_backbone().encoder, 3, SMALL)
    taps = Taps(random_maps([96] * 4, [(4, 6)] * 4, batch=1), None)
    assert net.eval()(taps).main.shape == (1, 3, 8, 12)
    with pytest.raises(LaminaError, match="two images or more at a time"):
        net.train()(taps)


def smp_twin():
    """smp's DPT on a small timm ViT, and ours with its weights."""
    smp = pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed (extra: dense)"
    )
    theirs = smp.DPT(
        "tu-vit_tiny_patch16_224",
        encoder_weights=None,
        classes=3,
        decoder_intermediate_channels=(8, 16, 24, 32),
        decoder_fusion_channels=16,
        img_size=64,
        embed_dim=48,
        num_heads=3,
        num_classes=0,
    )
    moved(theirs).eval()
    encoder = Encoder(theirs.encoder.model, mean=(0.0,) * 3, std=(1.0,) * 3)
    ours = DPT(encoder, 3, DPTOptions(reassemble=(8, 16, 24, 32), channels=16))
    assert list(ours.blocks) == list(theirs.encoder._output_indices)
    ours.decoder.load_state_dict(theirs.decoder.state_dict())
    ours.head.load_state_dict(theirs.segmentation_head.state_dict(), strict=False)
    return theirs, Segmenter(encoder, ours).eval()


def test_dpt_is_smps():
    theirs, ours = smp_twin()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours.logits(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("size", "patch"),
    [((32, 48), 8), ((24, 40), 8), ((56, 70), 14), ((48, 80), 16), ((20, 28), 4)],
)
def test_dpt_takes_grids_that_do_not_halve(size, patch):
    pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed (extra: dense)"
    )
    encoder = toy_backbone(image_size=size, patch_size=patch).encoder
    task = Segmenter(encoder, DPT(encoder, 3, DPTOptions(channels=8))).eval()
    logits = task._output(torch.rand(1, 3, *size)).main
    stride = {4: 4, 8: 8, 14: 16, 16: 16}[patch]
    assert logits.shape[-2:] == (size[0] // patch * stride, size[1] // patch * stride)
    assert task.logits(torch.rand(1, 3, *size)).shape == (1, 3, *size)
    values = torch.rand(1, 1, 3, 5)
    more = task.head._even(values)
    assert not any(side % max(1, 32 // stride) for side in more.shape[-2:])
    assert (more[:, :, 3:, :5] == values[:, :, -1:]).all()
    assert (more[:, :, :3, 5:] == values[..., -1:]).all()


def test_linear_is_norm_and_matrix():
    """The final norm, standardising by the batch, a matrix, and bilinear resizing, written out."""
    encoder = toy_backbone().encoder
    head = moved(LinearHead(encoder, 3, LinearHeadOptions(blocks=(1, 2), dropout=0.0)))
    images = torch.rand(4, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    tokens = torch.cat([encoder.norm(t)[:, 1:] for t in encoder(images, (1, 2))], dim=2)
    flat = tokens.flatten(0, 1)
    standard = (flat - flat.mean(0)) / (flat.var(0, correction=0) + 1e-5).sqrt()
    standard = standard * head.norm.weight + head.norm.bias
    scores = standard @ head.classifier.weight[:, :, 0, 0].T + head.classifier.bias
    expected = scores.view(4, 4, 6, 3).permute(0, 3, 1, 2)
    logits = Segmenter(encoder, head, frozen=True).train()._output(images).main
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(LaminaError, match="0 to 2"):
        LinearHead(encoder, 3, LinearHeadOptions(blocks=(3,)))


def test_pixels_without_a_class_count_nothing():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    labels[0, :2], labels[1, 3] = IGNORE, IGNORE
    probabilities = logits.double().softmax(1)
    total = 0.0
    for b in range(2):
        for y in range(4):
            for x in range(5):
                if labels[b, y, x] != IGNORE:
                    total -= float(probabilities[b, int(labels[b, y, x]), y, x].log())
    assert float(pixel_loss(logits, labels)) == pytest.approx(total / 40, rel=1e-5)
    assert float(pixel_loss(logits, torch.full_like(labels, IGNORE))) == 0
    parts = [float(pixel_loss(logits[b : b + 1], labels[b : b + 1])) for b in range(2)]
    assert float(pixel_loss(logits, labels)) == pytest.approx(sum(parts) / 2, rel=1e-6)


def batch(size=(32, 48), channels=3) -> Batch:
    images = torch.rand(2, channels, *size, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(0, len(CLASSES), (2, *size), generator=torch.Generator().manual_seed(1))
    return Batch(images, labels=labels.to(torch.uint8))


def heads(encoder):
    yield LinearHead(encoder, 3, LinearHeadOptions()), True
    yield UperNet(encoder, 3, SMALL), False
    yield DPT(encoder, 3, DPTOptions(channels=8)), False


@pytest.mark.parametrize("name", [*NAMES, "beit_base_patch16_224"])
def test_every_network_and_what_of_it_learns(name):
    """With no class token, with registers, rotary and relative positions: all that is said to train gets a
    gradient, and the encoder of a linear head none."""
    pytest.importorskip(
        "segmentation_models_pytorch", reason="segmentation-models-pytorch is not installed (extra: dense)"
    )
    for number in range(3):
        encoder = toy_encoder(name)
        head, frozen = list(heads(encoder))[number]
        task = Segmenter(encoder, head, frozen).train()
        terms = task(batch())
        terms["loss"].backward()
        for parameter_name, parameter in task.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, (name, parameter_name)
        assert encoder.training != frozen
        assert ("loss_aux" in terms) == isinstance(head, UperNet)
        ids = task.layer_ids()
        assert set(ids.values()) == ({4} if frozen else {0, 1, 2, 3, 4})
        assert {n for n, p in task.named_parameters() if p.requires_grad} == set(ids)


def test_the_auxiliary_loss_counts_its_share():
    task = Segmenter(toy_backbone().encoder, UperNet(toy_backbone().encoder, 3, SMALL)).train()
    terms = {name: term.detach() for name, term in task(batch()).items()}
    assert float(terms["loss"]) == pytest.approx(
        float(terms["loss_main"] + 0.4 * terms["loss_aux"]), rel=1e-6
    )
    assert set(task.eval()(batch())) == {"loss", "pixel_accuracy"}


def test_a_frozen_encoder_is_in_no_checkpoint():
    from lamina.train.checkpoint import model_tensors

    encoder = toy_backbone().encoder
    names = set(model_tensors(Segmenter(encoder, LinearHead(encoder, 3, LinearHeadOptions()), frozen=True)))
    assert names == {f"head.{n}" for n in LinearHead(encoder, 3, LinearHeadOptions()).state_dict()}
