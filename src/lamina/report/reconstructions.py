"""Reconstructions of chosen files: one PNG each, with original, masked input and reconstruction in a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lamina.core.batch import Batch
from lamina.core.errors import LaminaError
from lamina.core.files import portable_name, replacing
from lamina.data.decode.decode import decode_file
from lamina.data.decode.unreadable import Unreadable
from lamina.recipes.recipe import Recipe
from lamina.report.format import visible
from lamina.report.gallery import crop_for
from lamina.report.model_pictures import Reconstruction, reconstruct
from lamina.report.picture_grid import LOW_PASSED, NORMALISED
from lamina.report.picture_store import as_pil
from lamina.runs.run import Run, load_method

GAP_PX = 8
AT_ONCE = 16
LONGEST_STEM = 120


def reconstruct_files(run: Path, files: Sequence[Path], out: Path, step: int | None = None) -> list[Path]:
    """Let a run's method fill in hidden patches of image files; returns the PNG written for each, in order.

    Each file is read, resized and cropped as evaluations do it. What is hidden depends on a file's place
    in the list alone, so the same command gives the same pictures. `step` chooses a checkpoint; by default
    the newest. Raises LaminaError for a file that cannot be read, before anything is written.
    """
    if not files:
        raise LaminaError("there is no image to reconstruct; name at least one file")
    method, recipe = load_method(run, step)
    images = torch.stack([read_for(recipe, file) for file in files])
    names = _names(files)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    keyed = Batch(images, keys=torch.arange(len(images)))
    for start, part in enumerate(keyed.split(AT_ONCE)):
        made = reconstruct(method, part)
        for i in range(len(part)):
            file = out / f"{names[start * AT_ONCE + i]}.png"
            with replacing(file) as temporary:
                strip(made, i).save(temporary, format="PNG")
            written.append(file)
    return written


def remark(run: Path) -> str | None:
    """What is given in a run's reconstructions rather than predicted; None where nothing is."""
    options = Run(run).recipe().target
    given = [NORMALISED] if options.kind == "pixels" and options.norm_pix else []
    given += [LOW_PASSED] if options.kind == "pixels" and options.low_pass is not None else []
    return f"hidden patches: {'; '.join(given)}" if given else None


def read_for(recipe: Recipe, file: Path) -> Float[Tensor, "C H W"]:
    """One image file as evaluations show it to a recipe's encoder; or LaminaError."""
    try:
        image = decode_file(str(file), recipe.data.decoding(recipe.encoder.in_chans)).image
    except Unreadable as error:
        raise LaminaError(f"{visible(file)} cannot be read ({error}); give image files") from error
    return crop_for(recipe, image)


def strip(made: Reconstruction, i: int) -> Image.Image:
    """The i-th image: original, masked input and reconstruction from left to right, on transparent ground."""
    panels = [
        as_pil(made.original[i]),
        as_pil(made.masked[i], ~made.hidden[i]),
        *([] if made.reconstruction is None else [as_pil(made.reconstruction[i])]),
    ]
    width, height = panels[0].size
    n = len(panels)
    sheet = Image.new("RGBA", (n * width + (n - 1) * GAP_PX, height))
    for place, panel in enumerate(panels):
        sheet.paste(panel.convert("RGBA"), (place * (width + GAP_PX), 0))
    return sheet


def _names(files: Sequence[Path]) -> list[str]:
    """A name for each file's picture: its own without the suffix, numbered where two are alike."""
    names: list[str] = []
    taken: set[str] = set()
    for file in files:
        stem = portable_name(file.stem[:LONGEST_STEM] or "image")
        name, k = stem, 2
        while name.casefold() in taken:  # macOS and Windows take names for one that differ in case alone
            name, k = f"{stem}-{k}", k + 1
        names.append(name)
        taken.add(name.casefold())
    return names
