"""The main numbers of a reconstruction analysis, and what they are subject to."""

from __future__ import annotations

from lamina.analyze.output import Summary
from lamina.analyze.reconstruction import Band, ModelReconstruction, ReconstructionResult
from lamina.analyze.summary import NONE


def of_reconstruction(result: ReconstructionResult) -> Summary:
    """Error over original in two bands and at the patch mean, and PSNR beside its baseline."""
    header = (
        "run",
        "images",
        "hidden",
        "PSNR",
        "without a model",
        "left out: patch mean",
        "below π/2",
        "from π/2 on",
    )
    rows, notes = [], dict[str, list[str]]()
    for name, model in result.models.items():
        psnrs = (f"{psnr:.2f} dB" for psnr in (model.psnr, model.baseline_psnr))
        bands = (_left_out(band) for band in (model.mean, model.low, model.high))
        rows.append((name, str(model.n_images), f"{100 * model.mask_ratio:.0f} %", *psnrs, *bands))
        for note in _conditions(model):
            notes.setdefault(note, []).append(name)
    said = (
        "left out: energy of the error over that of the original at hidden patches, ± standard error over "
        "images; 100 %: as without a model"
    )
    return Summary(header, tuple(rows), (said, *(f"{', '.join(of)}: {note}" for note, of in notes.items())))


def _left_out(band: Band | None) -> str:
    if band is None or band.ratio is None:
        return NONE
    error = "" if band.standard_error is None else f" ± {100 * band.standard_error:.1f}"
    return f"{100 * band.ratio:.1f}{error} %"


def _conditions(model: ModelReconstruction) -> list[str]:
    notes = []
    if model.norm_pix:
        notes.append(
            "normalised patches: mean and deviation of the true patch, over pixels and channels, "
            "are given; so is that mean without a model, and what is left of it is colour"
        )
    else:
        notes.append("without a model: the mean colour of the visible patches")
    if model.low_pass is not None:
        cutoff = f"{model.low_pass:.2g} of Nyquist"
        notes.append(f"the target holds nothing above {cutoff}; the error is against the images as they are")
    return notes
