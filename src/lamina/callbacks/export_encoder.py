"""The encoder of the newest checkpoint, in the run's folder `encoder/`."""

from __future__ import annotations

import shutil
from filecmp import cmp
from pathlib import Path

from torch import nn

from lamina.cmae.cmae import CMAE
from lamina.core.files import TEMPORARY, replace_folder
from lamina.data.options import DataOptions
from lamina.encoder.options import EncoderOptions
from lamina.fusion.options import FusionOptions
from lamina.interop.export import DATA, write_encoder
from lamina.interop.metadata import export_files
from lamina.mim import MIM
from lamina.supervised.classifier import Supervised
from lamina.train.callbacks import Callback


class EncoderExport(Callback):
    """Keeps the encoder of the newest checkpoint in the run's folder `encoder/`.

    The folder is swapped as a whole: it is of one step, or for a moment not there. Files that others put into
    it are carried over.
    """

    required = True
    beside_training = True

    def __init__(
        self,
        folder: Path,
        encoder: EncoderOptions,
        fusion: FusionOptions | None = None,
        data: DataOptions = DATA,
    ) -> None:
        self.folder = folder
        self.encoder = encoder
        self.fusion = fusion
        self.data = data

    def on_checkpoint(self, step: int, folder: Path, task: nn.Module) -> None:
        """Write the encoder as it is at this step."""
        assert isinstance(task, MIM | CMAE | Supervised)
        temporary = self.folder.with_name(TEMPORARY + self.folder.name)
        shutil.rmtree(temporary, ignore_errors=True)
        write_encoder(task, self.encoder, self.fusion, temporary, step, self.data)
        if _same_export(temporary, self.folder):
            shutil.rmtree(temporary)
            return
        _carry_over(self.folder, temporary)
        replace_folder(temporary, self.folder)

    def on_resume(self, step: int, folder: Path, task: nn.Module) -> None:
        """What a kill left behind may be of another step, damaged, or gone: it is replaced by what belongs
        there, unless it is that already."""
        self.on_checkpoint(step, folder, task)


def _same_export(new: Path, old: Path) -> bool:
    """Exports have the same bytes where they have the same content."""
    return all(
        a.is_file() == b.is_file() and not b.is_symlink() and (not a.is_file() or cmp(a, b, shallow=False))
        for a, b in zip(export_files(new), export_files(old), strict=True)
    )


def _carry_over(old: Path, new: Path) -> None:
    """Copy what others put into a folder that is about to be replaced."""
    ours = {file.name for file in export_files(old)}
    for entry in old.iterdir() if old.is_dir() else ():
        if entry.name in ours or entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.copytree(entry, new / entry.name, symlinks=True)
        else:
            shutil.copy2(entry, new / entry.name, follow_symlinks=False)
