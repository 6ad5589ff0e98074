"""What a trained tokenizer is on disk, and how it comes back; DALL-E's file is read too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from lamina.errors import LaminaError
from lamina.files import replacing, write_atomically
from lamina.frozen import Identity, identify
from lamina.options import merge, to_mapping
from lamina.tokenizer.dalle import load_dalle
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.own import DiscreteVAE

FORMAT = "lamina-tokenizer"
VERSION = 1


@dataclass(frozen=True)
class TokenizerFolder:
    """The files of one tokenizer: config.json, tokenizer.safetensors, results.json, report.html, and those of
    its training (metrics.jsonl, train.log, checkpoints/)."""

    path: Path

    @property
    def config(self) -> Path:
        """Options and data."""
        return self.path / "config.json"

    @property
    def weights(self) -> Path:
        """The network as of the newest checkpoint."""
        return self.path / "tokenizer.safetensors"

    @property
    def results(self) -> Path:
        """What was measured on held-out images."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    def exists(self) -> bool:
        """Whether this folder is a tokenizer's."""
        return self.read().get("format") == FORMAT

    def read(self) -> dict[str, Any]:
        """The configuration; empty where there is none."""
        try:
            content = json.loads(self.config.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def options(self) -> TokenizerOptions:
        """The options it was made with. Raises `LaminaError` where the configuration is of no use here."""
        content = self.read()
        if content.get("version") != VERSION or not isinstance(content.get("options"), dict):
            raise LaminaError(
                f"{self.config} is damaged or of another version of lamina; train the tokenizer anew"
            )
        return merge(TokenizerOptions(), content["options"])

    def start(self, options: TokenizerOptions, data: str, names_sha256: str) -> None:
        """Write the configuration."""
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "format": FORMAT,
            "version": VERSION,
            "source": data,
            "names_sha256": names_sha256,
            "options": to_mapping(options),
        }
        write_atomically(self.config, json.dumps(content, indent=2) + "\n")

    def save(self, tokenizer: nn.Module) -> None:
        """Write the weights."""
        tensors = {
            name: tensor.detach().cpu().contiguous() for name, tensor in tokenizer.state_dict().items()
        }
        with replacing(self.weights) as temporary:
            save_file(tensors, temporary, metadata={"format": "pt"})


def build_tokenizer(options: TokenizerOptions) -> DiscreteVAE:
    """The network of the options, initialised by torch's own generator."""
    return DiscreteVAE(options.levels, options.width, options.depth, options.in_chans)


def load_tokenizer(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, Identity]:
    """A tokenizer and which one it is: a folder that `lamina tokenizer train` made, or the weights of
    DALL-E's encoder (.safetensors, or .pth of plain tensors).

    Raises:
        LaminaError: where there is none, or its files are damaged.
    """
    place = Path(path).expanduser()
    folder = TokenizerFolder(place)
    tokenizer: nn.Module
    if folder.exists():
        tokenizer = _own(folder)
    elif place.is_file():
        tokenizer = load_dalle(place)
    else:
        raise LaminaError(
            f"{path} is no tokenizer: neither a folder of `lamina tokenizer train` nor DALL-E's encoder file"
        )
    return tokenizer.to(device).eval(), identify(str(path), tokenizer)


def _own(folder: TokenizerFolder) -> DiscreteVAE:
    tokenizer = build_tokenizer(folder.options())
    try:
        tokenizer.load_state_dict(load_file(folder.weights))
    except FileNotFoundError:
        raise LaminaError(
            f"{folder.path} has no {folder.weights.name} yet; let its training reach a checkpoint"
        ) from None
    except (SafetensorError, RuntimeError, OSError) as error:
        raise LaminaError(f"{folder.weights} is damaged: {' '.join(str(error).split())[:200]}") from None
    return tokenizer
