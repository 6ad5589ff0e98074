"""Vectors kept on disk: a file for each encoder and source, named by a digest of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lamina.core.batch import Fault
from lamina.core.files import check_writable, replacing
from lamina.core.frozen import weights_sha256
from lamina.core.plain_files import check_plain
from lamina.core.records import parse_json
from lamina.data.options import LIMIT_FIELDS, DataOptions, reading_facts
from lamina.data.sources import Source
from lamina.features.pooling import Extractor, Identified
from lamina.features.table import FeatureKey, FeatureTable

FORMAT = 1
"""Goes up when files of before must not be read: other content, or other reading of images."""
_TOLD_APART_BY = ("torch", "torchvision", "timm", "pillow")


@dataclass(frozen=True)
class FeatureCache:
    """The files of one source, read in one way.

    A file is found by the SHA-256 of `facts` and of the extractor's identity: weights and structure of
    encoder and fusion, kinds of vectors, transform, the source's images, versions. It holds float32 vectors,
    places and labels as safetensors and the unreadable images as JSON in the header, with a digest of
    all that. What is damaged, or was made of anything else, is as good as absent.
    """

    folder: Path
    facts: Mapping[str, Any]

    @classmethod
    def of(
        cls, folder: Path, source: Source, image_size: tuple[int, int], in_chans: int, reading: DataOptions
    ) -> FeatureCache | None:
        """None where the source cannot tell its images from others.

        Raises:
            LaminaError: where nothing can be written to the folder.
        """
        check_writable(folder / "features.safetensors")
        identity = source.identity()
        if identity is None:
            return None
        facts = {
            "format": FORMAT,
            "versions": {name: version(name) for name in _TOLD_APART_BY},
            "source": identity,
            "image_size": list(image_size),
            "eval_crop_share": reading.eval_crop_share,
            "in_chans": in_chans,
            **reading_facts(reading),
            **{name: getattr(reading, name) for name in LIMIT_FIELDS},
        }
        return cls(folder, facts)

    def file(self, extractor: Extractor) -> Path | None:
        """Where its vectors are, or would be; None where it cannot tell itself from others."""
        if not isinstance(extractor, Identified):
            return None
        text = json.dumps([self.facts, extractor.identity()], sort_keys=True)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.safetensors"

    def read(self, encoder: str, extractor: Extractor) -> FeatureTable | None:
        """The vectors under that encoder's name; None where they are not there, or not whole."""
        file = self.file(extractor)
        if file is None or not file.is_file():
            return None
        try:
            check_plain(file)
            with safe_open(file, framework="pt") as opened:
                header = parse_json(opened.metadata()["lamina"])
                seal = header.pop("seal")
                tensors: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            if (header["name"], seal) != (file.stem, _seal(header, tensors)):
                return None
            vectors = {FeatureKey(encoder, *kind): tensors["/".join(kind)] for kind in header["kinds"]}
            faults = tuple(Fault(*fault) for fault in header["faults"])
            notes = tuple(str(note) for note in header.get("notes", ()))
            index, labels, several = (tensors.get(name) for name in ("index", "labels", "multi_labels"))
            if index is None:
                return None
            return FeatureTable(vectors, index, labels, faults, None, notes, several)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def write(self, encoder: str, extractor: Extractor, table: FeatureTable) -> str | None:
        """Keep an encoder's vectors of a table; says why where that cannot be."""
        file = self.file(extractor)
        if file is None:
            return f"vectors of {encoder} are not cached: what computes them has no identity"
        own = {key[1:]: matrix for key, matrix in table.vectors.items() if key.encoder == encoder}
        tensors = {"/".join(kind): matrix for kind, matrix in own.items()} | {"index": table.index}
        if table.labels is not None:
            tensors["labels"] = table.labels
        if table.multi_labels is not None:
            tensors["multi_labels"] = table.multi_labels
        header: dict[str, Any] = {"name": file.stem, "kinds": list(own), "faults": table.faults}
        header["notes"] = list(table.notes)
        header["seal"] = _seal(header, tensors)
        try:
            with replacing(file) as temporary:
                save_file(tensors, temporary, metadata={"lamina": json.dumps(header)})
        except (OSError, SafetensorError) as error:
            return f"vectors of {encoder} are not cached: {error}"
        return None


def _seal(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    text = json.dumps([header, weights_sha256(tensors)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
