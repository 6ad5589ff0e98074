"""What studies measure on a trained encoder: two probes, frequencies and curvature, on images fixed once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.analyze.catalog import HessianOptions
from lamina.analyze.frequency import analyze_frequency
from lamina.analyze.hessian import analyze_hessian
from lamina.analyze.models import Images, ModelOnImages, subsample
from lamina.data.options import DataOptions
from lamina.features.data import LabelledData
from lamina.features.extract import pooled_features
from lamina.features.knn import probe_knn
from lamina.features.linear import probe_linear
from lamina.features.options import ComputeOptions, KNNOptions, LinearOptions
from lamina.features.probe import group_notes
from lamina.interop.backbone import Backbone
from lamina.interop.load import load_encoder
from lamina.runs.run import load_task
from lamina.studies.options import StudyOptions

CHOICES = LinearOptions(c=(1.0, 10.0, 100.0, 1000.0))
SPECTRUM_IMAGES = 256
CURVED_BATCHES, CURVED_IMAGES = 4, 16


@dataclass(frozen=True)
class StudyMeasurements:
    """Labelled images and how they are read: the same for all runs of a study."""

    data: LabelledData
    options: StudyOptions

    def probes(self, backbone: Backbone) -> dict[str, Any]:
        """Test top-1 in [0, 1] of kNN and of a linear probe on mean-pooled patch tokens after the final norm.

        k, centring and C are chosen on the training images. `remarks` are what the probes say of themselves.
        """

        compute = ComputeOptions(256, self.options.workers, self.options.device)
        parts = ((self.data.train, self.options.num_train), (self.data.test, self.options.num_test))
        (bank, train), (queries, test) = (
            pooled_features(backbone, subsample(source, n), "mean", compute) for source, n in parts
        )
        probes = {
            "knn": probe_knn(bank, train.known_labels, queries, KNNOptions()),
            "linear": probe_linear(bank, train.known_labels, queries, CHOICES, seed=0),
        }
        top1 = {
            name: float((probe.predictions == test.known_labels).double().mean())
            for name, probe in probes.items()
        }
        remarks = group_notes(
            ((name, note) for name, probe in probes.items() for note in probe.notes), len(probes)
        )
        return {**top1, "remarks": list(remarks)}

    def spectrum(self, backbone: Backbone) -> dict[str, Any]:
        """The highest frequency of every block's output and the last block's whole curve (log amplitude minus
        DC, by rings), and the last layer's bands (plain amplitudes, before the final norm)."""
        model = ModelOnImages(backbone, self._images(backbone, SPECTRUM_IMAGES, 64))
        found = analyze_frequency({"it": model}, sub_blocks=False).models["it"]
        bands = found.bands["unnormed"]
        return {
            "high": [stage.high for stage in found.stages],
            "layers": [stage.layer for stage in found.stages],
            "frequencies": list(found.frequencies),
            "curve": list(found.stages[-1].relative),
            "low_band": bands.low,
            "high_band": bands.high,
            "share_high": bands.share_high,
        }

    def sharpness(self, run: Path) -> list[float]:
        """The Hessian's largest eigenvalue of each of 4 mini-batches of 16 held-out images: the method's own
        loss, encoder parameters, fixed masks."""
        task, _ = load_task(run)
        backbone = load_encoder(run)
        batches = self._images(backbone, CURVED_BATCHES * CURVED_IMAGES, CURVED_IMAGES)
        found = analyze_hessian({"it": task}, batches, HessianOptions(top=1, bottom=0))
        return list(found.maxima("it"))

    def _images(self, backbone: Backbone, n: int, batch_size: int) -> Images:
        size, channels = backbone.image_size, backbone.encoder.in_chans
        return Images(subsample(self.data.test, n), size, channels, batch_size, 0, _reading(backbone))


def _reading(backbone: Backbone) -> DataOptions | None:
    return None if backbone.origin is None else backbone.origin.recipe.data
