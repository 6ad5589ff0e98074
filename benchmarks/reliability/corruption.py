"""Damage to every kind of file that lamina reads back: is it detected, refused, or harmless?

    python benchmarks/reliability/corruption.py --damages 200 --json corruption.json

For each file: flipped bits, cuts and zeroed blocks at random places, and no file at all. What is read
afterwards is "refused" (one line, or passed over with a line), "harmless" (the same content), "absent" (no
file, no content), "silent" (other content without a word) or "traceback". Exit code 1 for silent ones
or tracebacks.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from small_run import PRETRAIN

from lamina.cli.entry import main as lamina
from lamina.core.errors import LaminaError
from lamina.core.frozen import weights_sha256
from lamina.core.records import write_json
from lamina.data.open import open_source
from lamina.data.options import DataOptions
from lamina.evaluate.compare.models import _read as read_models
from lamina.evaluate.result_files import read_scores, write_scores
from lamina.evaluate.robustness.partial_results import PartialResults
from lamina.evaluate.score import Score
from lamina.features.cache import FeatureCache
from lamina.features.table import FeatureKey, FeatureTable
from lamina.interop.load import load_encoder
from lamina.report.read_run import read_run
from lamina.runs.run import Run
from lamina.studies.run import _read as read_measured
from lamina.tokenizer.folder import load_tokenizer
from lamina.tokenizer.options import TokenizerOptions
from lamina.tokenizer_training import train_tokenizer
from lamina.train import checkpoint

DATA = "sample:photos?crop=16&most=2"
SCORE = Score("knn", "mae", 3, "photos", "top1", 0.9125, (0.8, 0.95), 100, 80, 0)
TOKENIZER = {"image_size": 16, "batch_size": 8, "levels": (4, 4), "width": 8, "depth": 1, "epochs": 0.1}


@dataclass(frozen=True)
class Kind:
    """A file, and how lamina reads it: content that can be compared, and lines about what was left out."""

    name: str
    file: Path
    read: Callable[[list[str]], Any]


def network(module: torch.nn.Module) -> str:
    return weights_sha256({**dict(module.named_parameters()), **dict(module.named_buffers())})


def training(root: Path) -> list[Kind]:
    """A run: its checkpoint, encoder, rows, recipe, and what its report reads."""
    run = root / "run"
    assert lamina([*PRETRAIN, "--out", str(run), "--max-steps", "3", "--workers", "0"]) == 0
    folder = run / "checkpoints" / "step-3"

    def read_checkpoint(said: list[str]) -> Any:
        found = checkpoint.newest_good(run / "checkpoints", said.append)
        content = checkpoint.read(found) if found else None
        return content and (weights_sha256(content.model), weights_sha256(content.optimizer), content.state)

    def read_encoder(said: list[str]) -> Any:
        backbone = load_encoder(run / "encoder")
        assert backbone.origin is not None
        said += [] if backbone.fusion is not None else ["no fusion"]
        return network(backbone), backbone.origin.recipe.encoder, backbone.origin.step

    def reported(what: str) -> Callable[[list[str]], Any]:
        def read(said: list[str]) -> Any:
            found = read_run(run)
            said += found.notes
            return getattr(found, what)

        return read

    def read_recipe(said: list[str]) -> Any:
        return Run(run).recipe(), Run(run).data()

    Score("knn", str(run), 3, "photos", "top1", 0.9125, (0.8, 0.95), 100, 80, 0).save(
        run / "results" / "a.json"
    )
    return [
        *(Kind(f"checkpoint/{f.name}", f, read_checkpoint) for f in sorted(folder.iterdir())),
        *(Kind(f"encoder/{f.name}", f, read_encoder) for f in sorted((run / "encoder").iterdir())),
        Kind("metrics.jsonl", run / "metrics.jsonl", reported("metrics")),
        Kind("recipe.yaml", run / "recipe.yaml", read_recipe),
        Kind("environment.json", run / "environment.json", reported("environment")),
        Kind("results/*.json", run / "results" / "a.json", reported("scores")),
    ]


def tokenizer(root: Path) -> list[Kind]:
    out = root / "tokenizer"
    options = TokenizerOptions(
        image_size=16, batch_size=8, levels=(4, 4), width=8, depth=1, workers=0, epochs=0.1
    )
    train_tokenizer(DATA, out, options)
    names = ("tokenizer.safetensors", "config.json")
    return [Kind(f"tokenizer/{n}", out / n, lambda said: network(load_tokenizer(out)[0])) for n in names]


def measurements(root: Path) -> list[Kind]:
    """What studies, comparisons and robustness keep, and a cache of features."""
    study, scores, models = (root / f"{name}.json" for name in ("study", "scores", "models"))
    write_json(study, {"knn": 0.875, "linear": 0.9125, "sha256": "0" * 64, "curve": [0.1, 0.2, 0.3]})
    write_scores(scores, [SCORE, SCORE])
    write_json(models, {"mae": [["run/mae", "0" * 64]]})
    parts = {"model": "mae", "severity": 5}
    with PartialResults.opened(root, parts) as results:
        results.add("fog", 7, 9)
    source = open_source(DATA)
    cache = FeatureCache.of(root / "cache", source, (16, 16), 3, DataOptions())
    assert cache is not None
    extractor = _Extractor()
    vectors = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    cache.write(
        "trained",
        extractor,
        FeatureTable({FeatureKey("trained", "last", "mean"): vectors}, torch.arange(8), None, ()),
    )

    def read_cache(said: list[str]) -> Any:
        table = cache.read("trained", extractor)
        said += [] if table is not None else ["computed again"]
        return table and weights_sha256({"/".join(k): v for k, v in table.vectors.items()})

    def read_kept(said: list[str]) -> Any:
        found = read_scores(scores, said.append)
        said += [] if found is not None else ["measured again"]
        return found

    def read_parts(said: list[str]) -> Any:
        with PartialResults.opened(root, parts) as kept:
            said += [] if "fog" in kept else ["measured again"]
            return "fog" in kept and kept.counts("fog")

    (cached,) = (root / "cache").glob("*.safetensors")
    return [
        Kind("study measured/*.json", study, lambda said: read_measured(study)),
        Kind("comparison scores/*.json", scores, read_kept),
        Kind("comparison models.json", models, lambda said: read_models(models) or said.append("none yet")),
        Kind("robustness measured.json", root / "measured.json", read_parts),
        Kind("features cache", cached, read_cache),
    ]


class _Extractor:
    """Only its identity counts here."""

    def identity(self) -> dict[str, str]:
        return {"weights": "0" * 64}

    def __call__(self, images: torch.Tensor) -> dict[Any, torch.Tensor]:
        raise NotImplementedError


def damaged(data: bytes, how: str, rng: random.Random) -> bytes | None:
    if how == "flip":
        at = rng.randrange(len(data))
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if how == "cut":
        return data[: rng.randrange(len(data))]
    if how == "zeros":
        size = min(rng.choice((1, 16, 512, 4096)), len(data))
        at = rng.randrange(len(data) - size + 1)
        return data[:at] + bytes(size) + data[at + size :]
    return None  # deleted


def outcome(kind: Kind, expected: Any) -> str:
    said: list[str] = []
    try:
        found = kind.read(said)
    except (LaminaError, FileNotFoundError) as error:
        return "refused" if "\n" not in str(error) else "traceback"
    except Exception as error:
        print(f"{kind.name}: {type(error).__name__}: {error}", file=sys.stderr)
        return "traceback"
    if found == expected:
        return "harmless"
    if said:
        return "refused"
    return "silent" if kind.file.exists() or found else "absent"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--damages", type=int, default=200, help="of each way and file (default 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the places (default 0)")
    parser.add_argument("--json", type=Path, help="also write the counts there")
    options = parser.parse_args()
    rng, counts = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        kinds = [*training(Path(folder)), *tokenizer(Path(folder)), *measurements(Path(folder))]
        for kind in kinds:
            expected, data = kind.read([]), kind.file.read_bytes()
            for how in ("flip", "cut", "zeros", "deleted"):
                found = Counter()
                for _ in range(1 if how == "deleted" else options.damages):
                    content = damaged(data, how, rng)
                    kind.file.unlink(missing_ok=True)
                    if content is not None:
                        kind.file.write_bytes(content)
                    # Zeros over zeros are no damage.
                    found["same bytes" if content == data else outcome(kind, expected)] += 1
                counts[f"{kind.name}, {how}"] = dict(found)
                print(f"{kind.name:32} {how:8} {dict(found)}", flush=True)
            kind.file.write_bytes(data)
    total = sum((Counter(each) for each in counts.values()), Counter())
    print(f"in all: {dict(total)}")
    if options.json is not None:
        options.json.write_text(json.dumps({"counts": counts, "total": total}, indent=1) + "\n")
    return int(total["silent"] + total["traceback"] > 0)


if __name__ == "__main__":
    sys.exit(main())
