"""Scores on disk: in a run a file for each protocol, data, settings, seed and step; several in one file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lamina.core.errors import LaminaError
from lamina.core.files import check_writable
from lamina.core.plain_files import DamagedFile
from lamina.core.records import expected_content, read_json, read_object, write_json
from lamina.data.digest import short_digest
from lamina.evaluate.protocol import RunOptions
from lamina.evaluate.score import Score
from lamina.interop.backbone import Backbone
from lamina.runs.model_spec import locate_step
from lamina.runs.run import Run


def file_name(text: str, most: int = 80) -> str:
    """A name as part of a file's name; one that is longer than `most` ends in a digest."""
    name = re.sub(r"[^A-Za-z0-9.=]+", "-", text).strip("-.") or "data"
    if len(name) <= most:
        return name
    return f"{name[-most + 20 :]}-{short_digest(text)}"


def result_file(
    results: Path,
    protocol: str,
    data: str,
    variant: str,
    seed: int,
    earlier_step: int | None = None,
    images: str = "",
) -> Path:
    """PROTOCOL-DATA-VARIANT-seedS.json in the folder `results`, with @STEP for a step that is not the newest.

    Other data or settings have another file: where the file is taken, since their names differ in punctuation
    alone or one name (a relative path) stands for other images, a digest is added.

    Args:
        results: folder of the run.
        protocol, data, seed: of the result.
        variant: the settings that differ from the usual ones, as text; "" for none.
        earlier_step: the step of the run that was evaluated, where it is not the newest.
        images: `images_digest` of the data; "" where it is not known.
    """
    step = "" if earlier_step is None else f"@{earlier_step}"
    called = file_name(data) + (f"-{file_name(variant)}" if variant else "")
    file = results / f"{protocol}-{called}-seed{seed}{step}.json"
    texts = (f"{data}|{variant}", f"{data}|{variant}|{images}")
    files = (file, *(results / f"{protocol}-{called}-{short_digest(t)}-seed{seed}{step}.json" for t in texts))
    return next((each for each in files if _is_of(each, data, variant, images)), files[-1])


def _is_of(file: Path, data: str, variant: str, images: str) -> bool:
    """Whether the file is free for these data and settings: not there, of the same, or damaged. A result of
    an earlier version does not say its images; it counts as one of the same."""
    try:
        content = read_object(file)
        same = images == "" or content.get("images", "") in ("", images)
        return bool(
            same and (content["data"], content.get("variant", content.get("way", ""))) == (data, variant)
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return True


def score_file(score: Score, newest: bool = True) -> Path | None:
    """The file of the score of a run, results/PROTOCOL-DATA-VARIANT-seedS.json with @STEP for a step that is
    not the newest; None where the model is no run."""
    run = Run(score.model)
    if not run.exists():
        return None
    earlier = None if newest else score.step
    return result_file(
        run.results, score.protocol, score.data, score.variant, score.seed, earlier, score.images
    )


def file_in_run(score: Score, model: str | Path | Backbone) -> Path | None:
    """`score_file` of a model as it was given: a run's own name stands for its newest step. None for a
    backbone that was given in place of a name."""
    return None if isinstance(model, Backbone) else score_file(score, newest=Run(model).exists())


def save_in_run(score: Score, model: str | Path | Backbone) -> None:
    """Write the score of a run into its results; nothing for other models.

    Raises:
        LaminaError: where the file cannot be written.
        OSError: where writing fails.
    """
    file = file_in_run(score, model)
    if file is not None:
        check_writable(file)
        score.save(file)


def evaluation_folder(
    run_options: RunOptions, backbone: Backbone, model: str | Path | Backbone, protocol: str, data: str
) -> Path:
    """The folder that a protocol trains in: the one that was given, or else one in the run that the model is.

    Raises:
        LaminaError: where none was given and the model is no run.
    """
    if run_options.out is not None:
        return run_options.out
    name = f"{protocol}-{file_name(data)}-seed{run_options.seed}"
    if not isinstance(model, Backbone) and backbone.origin is not None and Run(backbone.origin.name).exists():
        place, step = locate_step(model)
        newest = Run(str(model)).exists()
        return Run(place).evaluations / (name if newest else f"{name}@{step}")
    raise LaminaError(
        "no folder is given for the training; give --out FOLDER (a run has a folder of its own, "
        "RUN/evaluations)"
    )


def write_scores(file: Path, scores: Sequence[Score]) -> None:
    """Write several scores into one JSON file, which is replaced once the new one is whole."""
    write_json(file, {"scores": [score.to_json() for score in scores]})


def read_scores(file: Path, say: Callable[[str], None] = lambda line: None) -> tuple[Score, ...] | None:
    """The scores that `write_scores` wrote; None where there is no file, and, after a line to `say`, where it
    is damaged, so that they have to be measured again."""
    try:
        with expected_content(file):
            content = read_json(file)
            fields = content["scores"] if isinstance(content, dict) else content  # a list, before lamina 0.2
            return tuple(Score.of(each) for each in fields)
    except FileNotFoundError:
        pass
    except DamagedFile as error:
        say(f"{file} cannot be used ({error.reason}): measured again")
    return None
