"""The pictures of one or more runs on the page: those of one image on one card, runs side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lamina.report.format import count, number, percent
from lamina.report.picture_store import Album, Neighbour, Picture
from lamina.report.read_run import RunData

ORIGINAL, MASKED, RECONSTRUCTION, FEATURES = "original", "masked input", "reconstruction", "patch features"
NORMALISED = (
    "per-patch normalisation is undone with the mean and deviation of the true patch, so that its brightness "
    "and contrast are given and its content is predicted"
)
LOW_PASSED = "a low-passed target has no fine detail"


@dataclass(frozen=True)
class Tile:
    """One picture of a card; `run` is empty on the page of one run, and where all runs share the picture."""

    kind: str
    picture: Picture
    run: str = ""


@dataclass(frozen=True)
class Card:
    """The pictures made of one image, by kind."""

    name: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Sheet:
    """The nearest neighbours of each query, by the features of one run."""

    name: str
    rows: Sequence[tuple[Neighbour, Sequence[Neighbour]]]

    @property
    def width(self) -> int:
        """The largest number of neighbours in a row."""
        return max(len(found) for _, found in self.rows)


@dataclass(frozen=True)
class Caption:
    """A caption, and the runs that it is about; no names where it is about all."""

    text: str
    runs: Sequence[str]


@dataclass(frozen=True)
class Pictures:
    """All pictures of a page and what their captions say (nothing where it is not known)."""

    restored: Sequence[Card]
    filled: Sequence[str]
    """Runs whose prediction is a picture."""
    mapped: Sequence[Card]
    sheets: Sequence[Sheet]
    labelled: bool
    hidden: Sequence[Caption]
    undone: Sequence[Caption]
    channels: Sequence[Caption]
    pool: Sequence[Caption]
    steps: Sequence[Caption]
    explained: Sequence[tuple[str, str]]


def arrange(runs: Sequence[RunData]) -> Pictures:
    """The pictures of all runs, those of the same image together."""
    albums, many = [(run.name, run.album) for run in runs], len(runs) > 1
    restored = [run for run in runs if run.album.restored]
    filled = [run for run in restored if any(made.reconstruction for made in run.album.restored)]
    sheets = [Sheet(name, album.neighbours) for name, album in albums if album.neighbours]
    return Pictures(
        restored=_cards(_restored(albums), many),
        filled=[run.name for run in filled],
        mapped=_cards(_mapped(albums), many),
        sheets=sheets,
        labelled=any(query.label for sheet in sheets for query, _ in sheet.rows),
        hidden=_captions((run.name, _hidden(run.album)) for run in restored),
        undone=[
            *_captions(
                (run.name, NORMALISED if run.setting("target.norm_pix") is True else "") for run in filled
            ),
            *_captions((run.name, LOW_PASSED if _low_passed(run) else "") for run in filled),
        ],
        channels=_captions((run.name, str(run.album.facts.get("channels", ""))) for run in restored),
        pool=_captions((name, _pool(album)) for name, album in albums if album.neighbours),
        steps=_captions((run.name, _step(run.album)) for run in restored),
        explained=[(name, text) for name, album in albums if (text := _explained(album))],
    )


def _restored(albums: Sequence[tuple[str, Album]]) -> Iterable[tuple[str, list[Tile]]]:
    for run, album in albums:
        for made in album.restored:
            pictures = {
                ORIGINAL: made.original,
                MASKED: made.masked,
                RECONSTRUCTION: made.reconstruction,
            }
            yield made.name, [Tile(kind, picture, run) for kind, picture in pictures.items() if picture]


def _mapped(albums: Sequence[tuple[str, Album]]) -> Iterable[tuple[str, list[Tile]]]:
    for run, album in albums:
        for made in album.mapped:
            yield made.name, [Tile(ORIGINAL, made.original, run), Tile(FEATURES, made.colours, run)]


def _cards(made: Iterable[tuple[str, list[Tile]]], many: bool) -> list[Card]:
    """One card for each image; what runs share of it (original, often mask) stands there once."""
    cards: dict[tuple[str, str], dict[str, dict[str, list[Tile]]]] = {}
    for name, tiles in made:
        card = cards.setdefault((name, tiles[0].picture.uri), {})
        for tile in tiles:
            card.setdefault(tile.kind, {}).setdefault(tile.picture.uri, []).append(tile)
    return [
        Card(name, [tile for different in kinds.values() for tile in _distinct(different, many)])
        for (name, _), kinds in cards.items()
    ]


def _distinct(different: dict[str, list[Tile]], many: bool) -> list[Tile]:
    """The distinct pictures of one kind, with the names of their runs unless all share it."""
    named = many and (len(different) > 1 or len(next(iter(different.values()))) == 1)
    return [
        Tile(same[0].kind, same[0].picture, ", ".join(tile.run for tile in same) if named else "")
        for same in different.values()
    ]


def _captions(values: Iterable[tuple[str, str]]) -> list[Caption]:
    """The captions of all runs, equal ones once; runs are named where their captions differ."""
    runs: dict[str, list[str]] = {}
    for name, text in values:
        runs.setdefault(text, []).append(name)
    return [Caption(text, names if len(runs) > 1 else ()) for text, names in runs.items() if text]


def _step(album: Album) -> str:
    return "" if album.step is None else f"step {count(album.step)}"


def _hidden(album: Album) -> str:
    share = album.facts.get("hidden")
    return percent(share, 0) if isinstance(share, float) else ""


def _pool(album: Album) -> str:
    pool = album.facts.get("pool")
    return number(pool) if isinstance(pool, int) else ""


def _low_passed(run: RunData) -> bool:
    return isinstance(run.setting("target.low_pass"), float)


def _explained(album: Album) -> str:
    shares = album.facts.get("explained")
    if not album.mapped or not isinstance(shares, list) or not all(isinstance(s, float) for s in shares):
        return ""
    return percent(sum(shares), 0)
