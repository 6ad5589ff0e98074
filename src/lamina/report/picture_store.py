"""The pictures of a run on disk: PNG files and one JSON index, written by training, read by the report."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from lamina.core.batch import unit_float
from lamina.core.files import write_atomically
from lamina.core.plain_files import read_plain
from lamina.core.records import read_object, write_json
from lamina.core.shown_pixels import channels_shown, displayable, to_uint8
from lamina.features.nearest import Neighbours
from lamina.report.model_pictures import PcaMap, Reconstruction
from lamina.report.notes import LeftOut

INDEX_FILE = "index.json"
LONGEST_SIDE = 288
THUMBNAIL_SIDE = 144
MOST_BYTES = 2 << 20
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One picture of the page: a data URI and its size in pixels."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class Restored:
    """An image, the masked input of the encoder, and the reconstruction, if the method predicts pixels."""

    name: str
    original: Picture
    masked: Picture
    reconstruction: Picture | None


@dataclass(frozen=True)
class Mapped:
    """An image and the map of its patch features."""

    name: str
    original: Picture
    colours: Picture


@dataclass(frozen=True)
class Neighbour:
    """An image in a neighbour sheet; a query has no similarity."""

    name: str
    label: str
    picture: Picture
    similarity: float | None = None


@dataclass(frozen=True)
class Album:
    """All pictures of a run, as of one step; `facts` are numbers for the captions."""

    step: int | None = None
    restored: Sequence[Restored] = ()
    mapped: Sequence[Mapped] = ()
    neighbours: Sequence[tuple[Neighbour, Sequence[Neighbour]]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class AlbumWriter:
    """Collects pictures in a folder; `close` writes the index, which makes them visible to a reader."""

    def __init__(self, folder: Path, step: int):
        self.folder = folder
        self._saved: dict[str, str] = {}
        self._index: dict[str, Any] = {"step": step, "facts": {}, "sha256": self._saved}
        folder.mkdir(parents=True, exist_ok=True)

    def reconstructions(self, made: Reconstruction, names: Sequence[str]) -> None:
        """Keep originals, masked inputs (hidden patches transparent) and reconstructions."""
        filled = made.reconstruction
        self._index["facts"]["channels"] = channels_shown(made.original.shape[1])
        self._index["facts"]["hidden"] = float(made.hidden.float().mean())
        self._index["restored"] = [
            {
                "name": name,
                "original": self._save(f"original-{i}", made.original[i]),
                "masked": self._save(f"masked-{i}", made.masked[i], ~made.hidden[i]),
                "reconstruction": None if filled is None else self._save(f"reconstruction-{i}", filled[i]),
            }
            for i, name in enumerate(names)
        ]

    def pca(self, images: Tensor, made: PcaMap, names: Sequence[str]) -> None:
        """Keep the images and the maps of their patch features, one pixel a patch."""
        pictures = to_uint8(unit_float(images))
        self._index["facts"]["explained"] = list(made.explained)
        self._index["mapped"] = [
            {
                "name": name,
                "original": self._save(f"mapped-{i}", pictures[i], longest=THUMBNAIL_SIDE),
                "colours": self._save(f"pca-{i}", made.colours[i]),
            }
            for i, name in enumerate(names)
        ]

    def neighbours(
        self,
        images: Tensor,
        neighbours: Iterable[Neighbours],
        names: Sequence[str],
        labels: Sequence[str],
    ) -> None:
        """Keep the first images as queries, and the neighbours of each (`lamina.features.nearest`) with their
        cosine similarities; `labels` may be empty."""
        pictures = to_uint8(unit_float(images))

        def entry(i: int, similarity: float | None = None) -> dict[str, Any]:
            file = self._save(f"pool-{i}", pictures[i], longest=THUMBNAIL_SIDE)
            label = labels[i] if labels else ""
            return {"name": names[i], "label": label, "file": file, "similarity": similarity}

        self._index["facts"]["pool"] = len(images)
        self._index["neighbours"] = [
            {"query": entry(query), "found": [entry(i, s) for i, s in zip(rows, cosines, strict=True)]}
            for part in neighbours
            for query, (rows, cosines) in enumerate(
                zip(part.rows.tolist(), part.similarity.tolist(), strict=True), part.start
            )
        ]

    def close(self) -> None:
        """Write the index."""
        write_json(self.folder / INDEX_FILE, self._index)

    def _save(
        self,
        stem: str,
        image: UInt8[Tensor, "C H W"],
        shown: Bool[Tensor, "H W"] | None = None,
        longest: int = LONGEST_SIDE,
    ) -> str:
        file = f"{stem}.png"
        if file in self._saved:
            return file
        picture = as_pil(image, shown)
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
        content = _png(picture)
        write_atomically(self.folder / file, content)
        self._saved[file] = hashlib.sha256(content).hexdigest()
        return file


def as_pil(image: UInt8[Tensor, "C H W"], shown: Bool[Tensor, "H W"] | None = None) -> Image.Image:
    """An image as a picture: grey or colour, transparent where `shown` is False."""
    planes = displayable(image[None])[0]
    if shown is not None:
        colour = planes.expand(3, -1, -1)
        planes = torch.cat([colour * shown, shown[None].to(torch.uint8) * 255])
    array = np.ascontiguousarray(planes.permute(1, 2, 0).numpy())
    return Image.fromarray(array[..., 0] if len(planes) == 1 else array)


def embedded(picture: Image.Image) -> Picture:
    """A picture as a data URI, so that the page needs no other file."""
    return Picture(_uri(_png(picture)), *picture.size)


def _png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def read_album(folder: Path, notes: list[str]) -> Album:
    """What `AlbumWriter` kept; an empty album where there is none yet, with a note where it is broken."""
    with LeftOut("the set of pictures", notes):
        index = read_object(folder / INDEX_FILE)
        try:
            return _album(folder, index)
        except FileNotFoundError as error:
            raise ValueError(f"{Path(error.filename).name} is missing") from error
    return Album()


def _album(folder: Path, index: Mapping[str, Any]) -> Album:
    sha256 = index.get("sha256", {})

    def picture(name: str) -> Picture:
        return _picture(folder, name, sha256.get(name))

    def neighbour(row: Mapping[str, Any]) -> Neighbour:
        similarity = row["similarity"]
        return Neighbour(
            str(row["name"]),
            str(row["label"]),
            picture(row["file"]),
            None if similarity is None else float(similarity),
        )

    return Album(
        step=int(index["step"]),
        restored=[
            Restored(
                str(r["name"]),
                picture(r["original"]),
                picture(r["masked"]),
                None if r["reconstruction"] is None else picture(r["reconstruction"]),
            )
            for r in index.get("restored", ())
        ],
        mapped=[
            Mapped(str(r["name"]), picture(r["original"]), picture(r["colours"]))
            for r in index.get("mapped", ())
        ],
        neighbours=[
            (neighbour(r["query"]), [neighbour(found) for found in r["found"]])
            for r in index.get("neighbours", ())
        ],
        facts=dict(index.get("facts", {})),
    )


def _picture(folder: Path, name: str, sha256: str | None) -> Picture:
    """A PNG file of this folder; other paths are refused, since the index may be foreign."""
    if not isinstance(name, str) or Path(name).name != name or not name.endswith(".png"):
        raise ValueError(f"{name!r} is not a picture of this run")
    content = read_plain(folder / name, MOST_BYTES)
    if not content.startswith(_PNG):
        raise ValueError(f"{name!r} is not a PNG picture")
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError(f"{name!r} is not the picture of this index")
    width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))
    return Picture(_uri(content), width, height)
