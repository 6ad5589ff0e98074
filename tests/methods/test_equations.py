"""Each method's loss against its published equations, written out with plain matrices on copied weights.

Nothing of lamina's forward is used but its weights and the masks; one sample at a time, in float64.
"""

import math

import pytest
import torch
from torch import nn

from lamina.core.batch import Batch
from lamina.core.patches import sincos_2d
from lamina.core.rng import sample_keys
from lamina.encoder.build import build_vit
from lamina.encoder.options import EncoderOptions
from lamina.fusion.mff import MultiLevelFusion
from lamina.masking.random import RandomMasking
from lamina.methods import beit, crossmae, eva, maskfeat, milan
from lamina.methods.eva import eva_tokens
from lamina.targets.teacher import Teacher
from lamina.targets.token_ids import TokenIds

WIDTH, DEPTH, PX, SIDE, GRID = 24, 3, 8, 32, (4, 4)
N = 16
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
DECODER = {"decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2}
KEYS = sample_keys(3, 0, torch.arange(2))


def vit(width=WIDTH, depth=DEPTH):
    sizes = {"image_size": (SIDE, SIDE), "patch_size": PX, "width": width, "depth": depth, "heads": 2}
    return build_vit(EncoderOptions(**sizes))


def shaken(task):
    torch.manual_seed(1)
    for name, parameter in task.named_parameters():
        if not name.startswith("target"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    return task.double()


def images():
    torch.manual_seed(2)
    return torch.rand(2, 3, SIDE, SIDE, dtype=torch.float64)


def affine(linear, x):
    return x @ linear.weight.T + linear.bias


def normed(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def attend(q, k, v, heads):
    """Heads one after the other: softmax(q k / sqrt(d)) v."""
    d = q.shape[-1] // heads
    out = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        out.append((q[:, part] @ k[:, part].T / math.sqrt(d)).softmax(-1) @ v[:, part])
    return torch.cat(out, -1)


def block_of_vit(block, x, heads=2):
    q, k, v = affine(block.attn.qkv, normed(block.norm1, x)).chunk(3, -1)
    x = x + affine(block.attn.proj, attend(q, k, v, heads))
    return x + affine(block.mlp.fc2, gelu(affine(block.mlp.fc1, normed(block.norm2, x))))


def embedded(net, image, mean=MEAN, std=STD):
    """Patches times the matrix of the convolution, before positions."""
    image = (image - torch.tensor(mean).double().view(3, 1, 1)) / torch.tensor(std).double().view(3, 1, 1)
    rows = []
    for i in range(GRID[0]):
        for j in range(GRID[1]):
            patch = image[:, i * PX : (i + 1) * PX, j * PX : (j + 1) * PX]
            rows.append(net.patch_embed.proj.weight.flatten(1) @ patch.flatten() + net.patch_embed.proj.bias)
    return torch.stack(rows)


def encoded(task, image, hidden):
    """Tokens after the final norm of what the encoder sees, the class token first; all taps before it."""
    net = task.encoder.vit
    x = embedded(net, image)
    if task.encoder.hide == "replace":
        x = torch.where(hidden[:, None], task.encoder.mask_token[0, 0], x)
    x = x + net.pos_embed[0, 1:]
    if task.encoder.hide == "drop":
        x = x[~hidden]
    x = torch.cat([net.cls_token[0] + net.pos_embed[0, :1], x])
    taps = [x]
    for block in net.blocks:
        taps.append(block_of_vit(block, taps[-1]))
    fused = taps[-1]
    if isinstance(task.fusion, MultiLevelFusion):
        w = task.fusion.pool.logits.softmax(0)
        layers = task.fusion.layers
        fused = w[-1] * taps[-1]
        for i, layer in enumerate(layers[:-1]):
            fused = fused + w[i] * affine(task.fusion.projections[i], taps[layer + 1])
    return normed(net.norm, fused), taps


def teacher(scores=False):
    torch.manual_seed(5)
    return Teacher(vit(12, 2).double(), (0.5, 0.4, 0.3), (0.3, 0.2, 0.1), GRID, scores=scores)


def taught(target, image):
    """The teacher's features of each patch and its class token's attention."""
    net = target.vit
    x = embedded(net, image, (0.5, 0.4, 0.3), (0.3, 0.2, 0.1)) + net.pos_embed[0, 1:]
    x = torch.cat([net.cls_token[0] + net.pos_embed[0, :1], x])
    for block in net.blocks[:-1]:
        x = block_of_vit(block, x)
    last = net.blocks[-1]
    q, k, _ = affine(last.attn.qkv, normed(last.norm1, x)).chunk(3, -1)
    heads = [(q[:1, p] @ k[:, p].T / math.sqrt(6)).softmax(-1)[0, 1:] for p in (slice(0, 6), slice(6, 12))]
    weights = (heads[0] + heads[1]) / 2
    return normed(net.norm, block_of_vit(last, x))[1:], weights / weights.sum()


def two_minus_two_cos(a, b):
    return 2 - 2 * (a @ b) / (a.square().sum().sqrt() * b.square().sum().sqrt())


def loss_of(task, batch):
    return float(task(batch)["loss"].detach())


FUSIONS = [None, lambda: MultiLevelFusion(WIDTH, DEPTH, "all")]


class Palette(nn.Module):
    """A tokenizer that can be read: the id of 8 x 8 px is 4 x (mean red above 0.5) + ... of green, blue."""

    vocabulary, stride = 8, 8

    def ids(self, pixels):
        b, _, h, w = pixels.shape
        means = pixels.reshape(b, 3, h // 8, 8, w // 8, 8).mean((3, 5))
        bits = (means > 0.5).long()
        return 4 * bits[:, 0] + 2 * bits[:, 1] + bits[:, 2]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_beit(fusion):
    """L = -mean over hidden i of log softmax(W h_i + b)[z_i] (BEiT, equation 2)."""
    task = shaken(
        beit(vit(), TokenIds(Palette(), (PX, PX)), fusion and fusion(), min_block=2, mean=MEAN, std=STD)
    )
    pixels = images()
    mask = task.masking(KEYS, GRID)
    total, count = 0.0, 0
    for image, hidden in zip(pixels, mask, strict=True):
        tokens, _ = encoded(task, image, hidden)
        logits = affine(task.decoder.head, tokens[1:])
        for i in range(N):
            if hidden[i]:
                row, column = divmod(i, GRID[1])
                patch = image[:, row * PX : (row + 1) * PX, column * PX : (column + 1) * PX]
                red, green, blue = (int(patch[c].float().mean() > 0.5) for c in range(3))
                chosen = logits[i, 4 * red + 2 * green + blue]
                total += float((torch.logsumexp(logits[i], 0) - chosen).detach())
                count += 1
    assert count == 2 * round(N * 75 / 196)
    # Cross-entropy is in float32 in the method, whatever the run's precision.
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_maskfeat(fusion):
    """L = mean over hidden i of |W h_i + b - HOG_i|^2 / K; the histogram written out pixel by pixel."""
    task = shaken(maskfeat(vit(), fusion and fusion(), min_block=2, mean=MEAN, std=STD))
    pixels = images()
    mask = task.masking(KEYS, GRID)
    losses = []
    for image, hidden in zip(pixels, mask, strict=True):
        tokens, _ = encoded(task, image, hidden)
        histogram = hog(image)
        losses += [
            (affine(task.decoder.head, tokens[1 + i]) - histogram[i]).square().mean()
            for i in range(N)
            if hidden[i]
        ]
    expected = float(torch.stack(losses).mean().detach())
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(expected, rel=1e-9)


def hog(image):
    """Nine orientations per channel in each 8 px cell (here a patch), Gaussian 16, length one per cell."""
    padded = nn.functional.pad(image[None], (1, 1, 1, 1), mode="reflect")[0]
    window = [math.exp(-0.5 * ((i % 16 - 7.5) / 8) ** 2) for i in range(SIDE)]
    cells = torch.zeros(N, 3, 9, dtype=torch.float64)
    for c in range(3):
        p = padded[c]
        for y in range(SIDE):
            for x in range(SIDE):
                a = p[y : y + 3, x : x + 3]
                # In brackets, so that what is equal cancels to zero, not to 1e-17 of either sign.
                gx = float((a[0, 0] + 2 * a[1, 0] + a[2, 0]) - (a[0, 2] + 2 * a[1, 2] + a[2, 2]))
                gy = float((a[0, 0] + 2 * a[0, 1] + a[0, 2]) - (a[2, 0] + 2 * a[2, 1] + a[2, 2]))
                orientation = math.floor(math.atan2(gx, gy) / math.pi * 9) % 9
                cells[(y // 8) * 4 + x // 8, c, orientation] += math.hypot(gx, gy) * window[y] * window[x]
    return (cells / cells.square().sum(-1, keepdim=True).sqrt()).flatten(1)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_eva_with_mask_tokens(fusion):
    """L = mean over hidden i of 2 - 2 cos(W h_i + b, t_i) (EVA, section 2.1)."""
    task = shaken(eva_tokens(vit(), teacher(), fusion and fusion(), min_block=2, mean=MEAN, std=STD))
    pixels = images()
    mask = task.masking(KEYS, GRID)
    losses = []
    for image, hidden in zip(pixels, mask, strict=True):
        tokens, _ = encoded(task, image, hidden)
        features, _ = taught(task.target, image)
        guesses = affine(task.decoder.head, tokens[1:])
        losses += [two_minus_two_cos(guesses[i], features[i]) for i in range(N) if hidden[i]]
    expected = float(torch.stack(losses).mean().detach())
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_eva_in_maes_form(fusion):
    """MAE's decoder over visible and mask tokens, then the same loss."""
    task = shaken(eva(vit(), teacher(), fusion and fusion(), mean=MEAN, std=STD, **DECODER))
    pixels, decoder = images(), task.decoder
    mask = RandomMasking(0.75)(KEYS, GRID)
    positions = sincos_2d(16, GRID).double()
    losses = []
    for image, hidden in zip(pixels, mask, strict=True):
        tokens, _ = encoded(task, image, hidden)
        prefix, *seen = affine(decoder.embed, tokens)
        seen = iter(seen)
        x = torch.stack([decoder.mask_token[0, 0] if h else next(seen) for h in hidden.tolist()]) + positions
        x = torch.cat([prefix[None], x])
        for block in decoder.blocks:
            x = block_of_vit(block, x)
        guesses = affine(decoder.head, normed(decoder.norm, x))[1:]
        features, _ = taught(task.target, image)
        losses += [two_minus_two_cos(guesses[i], features[i]) for i in range(N) if hidden[i]]
    expected = float(torch.stack(losses).mean().detach())
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(expected, rel=1e-5)


def reading(block, x, memory):
    k, v = affine(block.kv, memory).chunk(2, -1)
    h = normed(block.norm1, x)
    x = x + affine(block.proj, attend(affine(block.q, h), k, v, 2))
    return x + affine(block.mlp.fc2, gelu(affine(block.mlp.fc1, normed(block.norm2, x))))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_milan(fusion):
    """Visible tokens are keys and values, mask tokens alone are updated; the loss is over all patches."""
    task = shaken(milan(vit(), teacher(scores=True), fusion and fusion(), mean=MEAN, std=STD, **DECODER))
    pixels, decoder = images(), task.decoder
    positions = sincos_2d(16, GRID).double()
    expected_scores = torch.stack([taught(task.target, image)[1] for image in pixels])
    torch.testing.assert_close(task.target(pixels)[1].double(), expected_scores, rtol=1e-5, atol=1e-7)
    mask = task.masking(KEYS, GRID, task.target(pixels)[1])
    losses = []
    for image, hidden in zip(pixels, mask, strict=True):
        tokens, _ = encoded(task, image, hidden)
        seen = affine(decoder.embed, tokens)
        seen = torch.cat([seen[:1], seen[1:] + positions[~hidden]])
        x = decoder.mask_token[0, 0] + positions[hidden]
        for block in decoder.blocks:
            h = normed(block.norm1, x)
            k, v = affine(block.kv, torch.cat([seen, h])).chunk(2, -1)
            x = x + affine(block.proj, attend(affine(block.q, h), k, v, 2))
            x = x + affine(block.mlp.fc2, gelu(affine(block.mlp.fc1, normed(block.norm2, x))))
        everything = torch.zeros(N, 16, dtype=torch.float64)
        everything[hidden], everything[~hidden] = x, seen[1:]
        guesses = affine(decoder.head, normed(decoder.norm, everything))
        features, _ = taught(task.target, image)
        losses += [two_minus_two_cos(guesses[i], features[i]) for i in range(N)]
    expected = float(torch.stack(losses).mean().detach())
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(expected, rel=1e-5)


def test_crossmae():
    """y_j = norm_j(sum_i w_ji x_i) from the embedded input on; queries read y_j and never each other."""
    task = shaken(crossmae(vit(), mean=MEAN, std=STD, **DECODER))
    pixels, decoder = images(), task.decoder
    mask = RandomMasking(0.75)(KEYS, GRID)
    positions = sincos_2d(16, GRID).double()
    where = task.predict(Batch(pixels, KEYS)).where
    assert where.shape == (2, 4)
    losses = []
    for image, hidden, chosen in zip(pixels, mask, where.tolist(), strict=True):
        _, taps = encoded(task, image, hidden)
        x = decoder.mask_token[0, 0] + positions[chosen]
        for j, block in enumerate(decoder.blocks):
            mix = sum(task.fusion.weight[j, i] * tap for i, tap in enumerate(taps))
            x = reading(block, x, normed(task.fusion.norms[j], mix))
        guesses = affine(decoder.head, normed(decoder.norm, x))
        stated = (image - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(
            3, 1, 1
        )
        for guess, place in zip(guesses, chosen, strict=True):
            row, column = divmod(place, GRID[1])
            patch = stated[:, row * PX : (row + 1) * PX, column * PX : (column + 1) * PX]
            patch = patch.permute(1, 2, 0).flatten()
            patch = (patch - patch.mean()) / (patch.var() + 1e-6).sqrt()
            losses.append((guess - patch).square().mean())
    expected = float(torch.stack(losses).mean().detach())
    assert loss_of(task, Batch(pixels, KEYS)) == pytest.approx(expected, rel=1e-7)
