"""What a trained tokenizer is on disk, and how it comes back; DALL-E's file is read too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lamina.core.config import merge, to_mapping
from lamina.core.errors import LaminaError
from lamina.core.frozen import WeightsId, identify
from lamina.core.plain_files import DamagedFile
from lamina.core.records import parse_json, read_json, write_json
from lamina.core.tensor_files import load_tensors, save_tensors
from lamina.tokenizer.dalle import load_dalle
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer.vae import DiscreteVAE

FORMAT = "lamina-tokenizer"
VERSION = 1
KEY = "lamina"
AGAIN = "resume its training, which writes it again, or restore it from a copy"


@dataclass(frozen=True)
class TokenizerFolder:
    """The files of one tokenizer: config.json, tokenizer.safetensors, results.json, report.html, and those of
    its training (metrics.jsonl, train.log, checkpoints/)."""

    path: Path

    @property
    def config(self) -> Path:
        """The JSON file with the options and the name of the data."""
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
        """The HTML page about the tokenizer."""
        return self.path / "report.html"

    def exists(self) -> bool:
        """Whether this folder is a tokenizer's."""
        return self.read().get("format") == FORMAT

    def read(self) -> dict[str, Any]:
        """The configuration; empty where there is none. Raises `LaminaError` where it is damaged."""
        try:
            content = read_json(self.config, links=True)
        except FileNotFoundError:
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
        write_json(self.config, content, indent=2)

    def save(self, tokenizer: nn.Module, step: int) -> None:
        """Write the weights as they are after `step` steps."""
        about = {"format": FORMAT, "step": step, "options": self.read()["options"]}
        save_tensors(tokenizer.state_dict(), self.weights, {KEY: json.dumps(about, sort_keys=True)})


def build_tokenizer(options: TokenizerOptions) -> DiscreteVAE:
    """The network of the options, initialised by torch's own generator."""
    return DiscreteVAE(options.levels, options.width, options.depth, options.in_chans)


def load_tokenizer(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, WeightsId]:
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
        tensors, header = load_tensors(folder.weights, links=True, mend=AGAIN)
        about = parse_json(header[KEY]) if KEY in header else {}
        if about and about["options"] != folder.read()["options"]:
            raise DamagedFile(folder.weights, f"it is of another training than {folder.config.name}", AGAIN)
        tokenizer.load_state_dict(tensors)
    except FileNotFoundError:
        raise LaminaError(
            f"{folder.path} has no {folder.weights.name} yet; let its training reach a checkpoint"
        ) from None
    except (KeyError, TypeError, RuntimeError) as error:
        raise DamagedFile(folder.weights, " ".join(str(error).split())[:200], AGAIN) from None
    return tokenizer
