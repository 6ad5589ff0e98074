"""One self-contained page for a run, or for several side by side, and the pictures in it."""

from lamina.report.gallery import Gallery, paint
from lamina.report.live import LiveReport
from lamina.report.model_pictures import PcaMap, Reconstruction, nearest, patch_features, pca_map, reconstruct
from lamina.report.page import write_report
from lamina.report.reconstructions import reconstruct_files

__all__ = [
    "Gallery",
    "LiveReport",
    "PcaMap",
    "Reconstruction",
    "nearest",
    "paint",
    "patch_features",
    "pca_map",
    "reconstruct",
    "reconstruct_files",
    "write_report",
]
