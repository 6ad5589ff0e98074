"""The discrete VAE of DALL-E (Ramesh et al., arXiv 2102.12092, appendix A), which BEiT takes its ids from.

Parameters are named as in OpenAI's release (openai/DALL-E, under the MIT licence), so its weights load.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.core.errors import LaminaError
from lamina.core.tensor_files import load_tensors
from lamina.tokenizer.vae import check_images

EPS = 0.1
"""Pixels are squeezed into [EPS, 1 - EPS], for the logit-Laplace likelihood has no mass at 0 and 1."""
_GROUPS = 4
_BLOCK = re.compile(r"blocks\.group_1\.block_(\d+)\.")


def map_pixels(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """[0, 1] to [0.1, 0.9]."""
    return (1 - 2 * EPS) * images + EPS


def unmap_pixels(values: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """The inverse of `map_pixels`, cut off at 0 and 1."""
    return ((values - EPS) / (1 - 2 * EPS)).clamp(0, 1)


class Conv(nn.Module):
    """A convolution that keeps the size, its weight and bias named `w` and `b`."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel) / (n_in * kernel**2) ** 0.5)
        self.b = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """In the weights' precision; OpenAI's code halves it on GPUs."""
        return F.conv2d(x, self.w, self.b, padding="same")


class Bottleneck(nn.Module):
    """x + gain * four convolutions of a quarter of the width, each after a ReLU."""

    def __init__(self, n_in: int, n_out: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.gain = gain
        widths = (n_in, n_out // 4, n_out // 4, n_out // 4, n_out)
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k, kernel in enumerate(kernels):
            layers[f"relu_{k + 1}"] = nn.ReLU()
            layers[f"conv_{k + 1}"] = Conv(widths[k], widths[k + 1], kernel)
        self.res_path = nn.Sequential(layers)
        self.id_path = nn.Identity() if n_in == n_out else Conv(n_in, n_out, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D H W"]:
        """The block's output, of the same height and width."""
        result: Tensor = self.id_path(x) + self.gain * self.res_path(x)
        return result


class DalleEncoder(nn.Module):
    """Mapped pixels to a logit for each word of the vocabulary, one position for 8 x 8 px.

    Args:
        width: channels of the first group; doubled in each of the three that follow.
        depth: blocks in a group.
        vocabulary: number of words.
        in_chans: channels of the images.
    """

    def __init__(self, width: int = 256, depth: int = 2, vocabulary: int = 8192, in_chans: int = 3) -> None:
        super().__init__()
        self.vocabulary, self.in_chans = vocabulary, in_chans
        widths = [width * 2**k for k in range(_GROUPS)]
        groups = _groups(width, widths, depth, (3, 3, 3, 1), "pool", nn.MaxPool2d(2))
        head = OrderedDict(relu=nn.ReLU(), conv=Conv(widths[-1], vocabulary, 1))
        self.blocks = nn.Sequential(
            OrderedDict(input=Conv(in_chans, width, 7), **groups, output=nn.Sequential(head))
        )

    def forward(self, mapped: Float[Tensor, "B C H W"]) -> Float[Tensor, "B V h w"]:
        """Logits of mapped pixels."""
        logits: Tensor = self.blocks(mapped)
        return logits


class DalleDecoder(nn.Module):
    """One-hot words to the mean and log-scale of each channel of each pixel (before the sigmoid).

    Args:
        width: channels of the last group; the first one has 8 times as many.
        depth: blocks in a group.
        vocabulary: number of words.
        start: channels that words are mapped to first.
        out_chans: channels of the images.
    """

    def __init__(
        self, width: int = 256, depth: int = 2, vocabulary: int = 8192, start: int = 128, out_chans: int = 3
    ) -> None:
        super().__init__()
        widths = [width * 2**k for k in reversed(range(_GROUPS))]
        groups = _groups(start, widths, depth, (1, 3, 3, 3), "upsample", nn.Upsample(scale_factor=2))
        head = OrderedDict(relu=nn.ReLU(), conv=Conv(width, 2 * out_chans, 1))
        self.blocks = nn.Sequential(
            OrderedDict(input=Conv(vocabulary, start, 1), **groups, output=nn.Sequential(head))
        )

    def forward(self, words: Float[Tensor, "B V h w"]) -> Float[Tensor, "B C2 H W"]:
        """Statistics of the pixels that words, or mixes of them, stand for."""
        statistics: Tensor = self.blocks(words)
        return statistics


class DalleTokenizer(nn.Module):
    """Ids of images and, with a decoder, images of ids."""

    stride = 8

    def __init__(self, encoder: DalleEncoder, decoder: DalleDecoder | None = None) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    @property
    def vocabulary(self) -> int:
        """Number of words."""
        return self.encoder.vocabulary

    @torch.no_grad()
    def ids(self, images: Float[Tensor, "B C H W"]) -> Int64[Tensor, "B h w"]:
        """The likeliest word for each 8 x 8 px of images on [0, 1]. Raises `LaminaError` for images of other
        channels than the encoder's, and sides that are no multiples of 8 px."""
        check_images(images, self.encoder.in_chans, self.stride)
        logits: Tensor = self.encoder(map_pixels(images))
        return logits.argmax(1)

    @torch.no_grad()
    def decode(self, ids: Int64[Tensor, "B h w"]) -> Float[Tensor, "B C H W"]:
        """The mean image on [0, 1] of ids. Raises `LaminaError` where there is no decoder."""
        if self.decoder is None:
            raise LaminaError("this tokenizer has no decoder; load it with the decoder's weights too")
        words = F.one_hot(ids, self.vocabulary).permute(0, 3, 1, 2).float()
        mean, _ = self.decoder(words).chunk(2, dim=1)
        return unmap_pixels(mean.sigmoid())


def load_dalle(encoder: str | Path, decoder: str | Path | None = None) -> DalleTokenizer:
    """The tokenizer with weights from local files (.safetensors or .pth of plain tensors), on the CPU.

    Widths, depth and vocabulary are read off the weights. Raises `LaminaError` for files that are missing,
    damaged, pickled modules (as OpenAI's encoder.pkl is), or of another network.
    """
    return DalleTokenizer(
        _load(Path(encoder), DalleEncoder), None if decoder is None else _load(Path(decoder), DalleDecoder)
    )


def _groups(
    n_in: int, widths: Sequence[int], depth: int, kernels: Sequence[int], name: str, between: nn.Module
) -> dict[str, nn.Module]:
    """Groups of blocks with a change of size between them; `name` is how the release calls the latter."""
    gain = 1 / (len(widths) * depth) ** 2
    groups: dict[str, nn.Module] = {}
    for g, width in enumerate(widths, start=1):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for k in range(depth):
            layers[f"block_{k + 1}"] = Bottleneck(width if k else n_in, width, kernels, gain)
        if g < len(widths):
            layers[name] = between
        groups[f"group_{g}"] = nn.Sequential(layers)
        n_in = width
    return groups


Net = TypeVar("Net", DalleEncoder, DalleDecoder)


def _load(path: Path, kind: type[Net]) -> Net:
    tensors = _read(path)
    try:
        first, last = tensors["blocks.input.w"].shape, tensors["blocks.output.conv.w"].shape
        depth = max(int(found[1]) for name in tensors if (found := _BLOCK.match(name)))
        if kind is DalleEncoder:
            net = kind(first[0], depth, last[0], first[1])
        else:
            net = kind(last[1], depth, first[1], first[0], last[0] // 2)  # type: ignore[call-arg]
        net.load_state_dict(tensors)
    except (KeyError, IndexError, ValueError, RuntimeError):
        raise LaminaError(f"{path.name} holds no weights of a {kind.__name__}; give DALL-E's own") from None
    return net


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise LaminaError(f"there is no weights file {path}; fetch it from OpenAI's DALL-E release")
    if path.suffix == ".safetensors":
        return load_tensors(path, links=True, mend="fetch it again")[0]
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a foreign file may fail in any way
        raise LaminaError(
            f"{path.name} is damaged or holds a pickled module, which could run code and is not read; where "
            "you trust it, convert it once with OpenAI's package dall_e installed: "
            "torch.save(torch.load(file, weights_only=False).state_dict(), 'encoder.pth')"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]  # as mmengine saves it
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise LaminaError(f"{path.name} is no dictionary of tensors; save the module's state_dict()")
    return content
