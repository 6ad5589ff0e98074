"""DALL-E's discrete VAE: names, shapes and arithmetic of OpenAI's release, and its files."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from lamina.core.errors import LaminaError
from lamina.tokenizer.dalle import (
    DalleDecoder,
    DalleEncoder,
    DalleTokenizer,
    load_dalle,
    map_pixels,
    unmap_pixels,
)
from lamina.tokenizer.folder import load_tokenizer


def tiny_encoder(**changes):
    torch.manual_seed(0)
    encoder = DalleEncoder(**{"width": 8, "vocabulary": 11} | changes)
    for parameter in encoder.parameters():  # biases begin at 0, which would hide one that is not added
        parameter.data += 0.1 * torch.randn_like(parameter)
    return encoder


def tiny_decoder(**changes):
    torch.manual_seed(1)
    decoder = DalleDecoder(**{"width": 8, "vocabulary": 11, "start": 6} | changes)
    for parameter in decoder.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return decoder


def published(start, groups, kernels, n_in, n_out, first):
    """Names and shapes of the release, from its description: `start` and `first` are width and kernel of the
    input, `groups` the widths of the four groups of two blocks."""
    shapes = {}

    def conv(name, channels_in, channels_out, kernel):
        shapes[f"blocks.{name}.w"] = (channels_out, channels_in, kernel, kernel)
        shapes[f"blocks.{name}.b"] = (channels_out,)

    conv("input", n_in, start, first)
    before = start
    for g, width in enumerate(groups, start=1):
        for k in (1, 2):
            at, hidden = f"group_{g}.block_{k}", width // 4
            sides = [(before, hidden), (hidden, hidden), (hidden, hidden), (hidden, width)]
            for c, (channels, kernel) in enumerate(zip(sides, kernels, strict=True), start=1):
                conv(f"{at}.res_path.conv_{c}", *channels, kernel)
            if before != width:
                conv(f"{at}.id_path", before, width, 1)
            before = width
    conv("output.conv", before, n_out, 1)
    return shapes


def test_names_and_shapes_are_the_published_ones():
    """openai/DALL-E: 256 hidden, 2 blocks in each of 4 groups, 8192 words; conv weights are called w and b."""
    with torch.device("meta"):
        encoder, decoder = DalleEncoder(), DalleDecoder()
    widths = (256, 512, 1024, 2048)
    for net, expected in (
        (encoder, published(256, widths, (3, 3, 3, 1), 3, 8192, 7)),
        (decoder, published(128, widths[::-1], (1, 3, 3, 3), 8192, 6, 1)),
    ):
        assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == expected
    assert len(encoder.state_dict()) == 2 * (1 + 8 * 4 + 3 + 1)  # three groups begin by widening
    assert len(decoder.state_dict()) == 2 * (1 + 8 * 4 + 4 + 1)  # all four change the width
    assert sum(p.numel() for p in encoder.parameters()) == ENCODER_SIZE
    assert sum(p.numel() for p in decoder.parameters()) == DECODER_SIZE


ENCODER_SIZE = 53_786_240
DECODER_SIZE = 43_829_766


def blocks(x, w, pads, between):
    """The four groups, written out: x + (four of ReLU and convolution) / 64, a change of size between groups."""
    for g in range(1, 5):
        for k in (1, 2):
            at = f"blocks.group_{g}.block_{k}"
            inner = x
            for c, pad in enumerate(pads, start=1):
                name = f"{at}.res_path.conv_{c}"
                inner = F.conv2d(inner.relu(), w[f"{name}.w"], w[f"{name}.b"], padding=pad)
            short = F.conv2d(x, w[f"{at}.id_path.w"], w[f"{at}.id_path.b"]) if f"{at}.id_path.w" in w else x
            x = short + inner / 64  # 1 / (groups * blocks)^2
        if g < 4:
            x = between(x)
    return F.conv2d(x.relu(), w["blocks.output.conv.w"], w["blocks.output.conv.b"])


def test_the_encoder_is_its_equations():
    """Map to [0.1, 0.9], 7 x 7, the groups with max pools between them, argmax."""
    encoder, images = tiny_encoder(), torch.rand(2, 3, 16, 24)
    w = dict(encoder.named_parameters())
    x = F.conv2d(0.8 * images + 0.1, w["blocks.input.w"], w["blocks.input.b"], padding=3)
    logits = blocks(x, w, (1, 1, 1, 0), lambda x: F.max_pool2d(x, 2))
    assert logits.shape == (2, 11, 2, 3)
    torch.testing.assert_close(encoder(map_pixels(images)), logits)
    assert torch.equal(DalleTokenizer(encoder).ids(images), logits.argmax(1))


def test_the_decoder_is_its_equations():
    """One-hot words, 1 x 1, the groups with pixels doubled between them, sigmoid of the means, unmapped."""
    decoder, ids = tiny_decoder(), torch.randint(0, 11, (2, 2, 3))
    w = dict(decoder.named_parameters())
    x = w["blocks.input.w"][:, :, 0, 0].t()[ids].permute(0, 3, 1, 2) + w["blocks.input.b"].view(-1, 1, 1)
    statistics = blocks(x, w, (0, 1, 1, 1), lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    assert statistics.shape == (2, 6, 16, 24)
    expected = ((statistics[:, :3].sigmoid() - 0.1) / 0.8).clamp(0, 1)
    torch.testing.assert_close(DalleTokenizer(tiny_encoder(), decoder).decode(ids), expected)


def test_pixels_are_mapped_and_come_back():
    ends = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(map_pixels(ends).flatten(), torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(unmap_pixels(map_pixels(ends)), ends)
    assert unmap_pixels(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)).flatten().tolist() == [0.0, 1.0]


def write(state, file):
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "meta": {"epoch": 1}} if file.stem == "wrapped" else state, file)
    return file


@pytest.mark.parametrize("name", ["encoder.safetensors", "encoder.pth", "encoder.pkl", "wrapped.pth"])
def test_weights_come_from_a_local_file(tmp_path, name):
    encoder, images = tiny_encoder(depth=1, in_chans=1), torch.rand(1, 1, 16, 16)
    tokenizer, identity = load_tokenizer(write(encoder.state_dict(), tmp_path / name))
    assert torch.equal(tokenizer.ids(images), DalleTokenizer(encoder).ids(images))
    assert (tokenizer.vocabulary, tokenizer.stride, tokenizer.training) == (11, 8, False)
    assert len(identity.sha256) == 64


def test_a_decoder_is_read_beside_it_and_missed_where_it_is_not(tmp_path):
    encoder, decoder = tiny_encoder(), tiny_decoder()
    files = [
        write(net.state_dict(), tmp_path / f"{type(net).__name__}.safetensors") for net in (encoder, decoder)
    ]
    ids = torch.randint(0, 11, (1, 2, 2))
    assert torch.equal(load_dalle(*files).decode(ids), DalleTokenizer(encoder, decoder).decode(ids))
    with pytest.raises(LaminaError, match="no decoder; load it"):
        load_dalle(files[0]).decode(ids)
    with pytest.raises(LaminaError, match="no weights of a DalleEncoder"):
        load_dalle(files[1])
    with pytest.raises(LaminaError, match="no weights of a DalleDecoder"):
        load_dalle(*files[::-1][1:], files[0])
    with pytest.raises(LaminaError, match="there is no weights file"):
        load_dalle(files[0], tmp_path / "nothing.pth")


@pytest.mark.parametrize(
    "change", [lambda s: s.pop("blocks.output.conv.b"), lambda s: s.update(more=torch.ones(1)), dict.clear]
)
def test_weights_of_another_network_are_refused(tmp_path, change):
    state = dict(tiny_encoder().state_dict())
    change(state)
    with pytest.raises(LaminaError, match="no weights of a DalleEncoder"):
        load_tokenizer(write(state, tmp_path / "encoder.pth"))


def test_weights_of_odd_shapes_are_refused(tmp_path):
    odd = {name: torch.ones(2) for name in tiny_encoder().state_dict()}
    with pytest.raises(LaminaError, match="no weights of a DalleEncoder"):
        load_tokenizer(write(odd, tmp_path / "encoder.safetensors"))
    with pytest.raises(LaminaError, match="no dictionary of tensors"):
        load_tokenizer(write([torch.ones(2)], tmp_path / "encoder.pth"))


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_pickled_module_is_refused_and_runs_nothing(tmp_path):
    mark = tmp_path / "was-here"
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(Hostile(mark)))
    torch.save({"blocks.input.w": torch.ones(1), "x": Hostile(mark)}, tmp_path / "zip.pth")
    torch.save(Hostile(mark), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save(tiny_encoder(), tmp_path / "module.pkl")
    for name in ("plain.pkl", "zip.pth", "old.pth", "module.pkl"):
        with pytest.raises(LaminaError, match="pickled module") as error:
            load_tokenizer(tmp_path / name)
        assert "state_dict" in str(error.value)
        assert "\n" not in str(error.value)
    assert not mark.exists()
    pickle.loads((tmp_path / "plain.pkl").read_bytes()).close()  # noqa: S301
    assert mark.exists()  # it would have run
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(LaminaError, match="damaged"):
        load_tokenizer(tmp_path / "other.safetensors")
    with pytest.raises(LaminaError, match="is no tokenizer"):
        load_tokenizer(tmp_path / "nothing")


def test_images_that_cannot_be_named_are_refused():
    tokenizer = DalleTokenizer(tiny_encoder())
    with pytest.raises(LaminaError, match="reads 3 channels, the images have 4"):
        tokenizer.ids(torch.rand(1, 4, 16, 16))
    with pytest.raises(LaminaError, match="multiples of 8 px, not 20 x 16"):
        tokenizer.ids(torch.rand(1, 3, 20, 16))
