"""The arguments of verbs: types that several verbs share, and those of verbs that start from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import tyro

from lamina.cli.config_file import Start, with_config
from lamina.cli.parse import long_names, parse, peek
from lamina.core.ranges import COUNT
from lamina.data.samples.catalog import sample_names
from lamina.encoder.options import EncoderOptions, network_options
from lamina.evaluate.detect.recipes import DetectRecipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe
from lamina.evaluate.protocol import RunOptions, TrainingRecipe
from lamina.evaluate.segment.recipes import SegmentRecipe
from lamina.evaluate.unused_options import check_fields, without_old_fields
from lamina.features.options import ComputeOptions, Progress
from lamina.recipes.recipe import Recipe
from lamina.runs.default_folder import default_run_folder

T = TypeVar("T")
R = TypeVar("R", bound=TrainingRecipe)

_MODEL = (
    "The encoder: a run, a step of a run (runs/mff@100), a timm name or a weights file; untrained:MODEL is "
    "the same network before training."
)
_IMAGES = (
    "Images: a folder (searched in depth), a .txt list, a quoted glob, tar or zip files, these or a folder "
    "at a remote (s3://, gs://, https://, hf://), a table (.csv, .parquet), a dataset of Hugging Face "
    f"(hf:org/name), or a sample: {sample_names()}."
)
_LABELLED = (
    "Labelled images: root/CLASS/..., root/{train,val}/CLASS/..., a table with a column of labels, "
    "hf:org/name, or a sample such as sample:photos."
)
_NETWORK = "timm name of the network, for a weights file that does not name it."
_HEADS = "Attention heads of the network, for a weights file of an unusual width that does not name them."

Model = Annotated[str, tyro.conf.arg(metavar="MODEL", help=_MODEL)]
Images = Annotated[str, tyro.conf.arg(metavar="DATA", help=_IMAGES)]
Labelled = Annotated[str, tyro.conf.arg(metavar="DATA", help=_LABELLED)]
Network = Annotated[str | None, tyro.conf.arg(help=_NETWORK)]
Heads = Annotated[int | None, tyro.conf.arg(name="encoder.heads", help=_HEADS), COUNT]
Json = Annotated[Path | None, tyro.conf.arg(help="Also write the result to this JSON file.")]
Flat = Annotated[T, tyro.conf.arg(name="")]
"""A dataclass whose fields are options without a prefix."""


@dataclass(frozen=True)
class ComputeArguments(ComputeOptions):
    """How features are computed. Of these options only the image size changes the numbers."""

    progress: tyro.conf.Suppress[tyro.conf.Fixed[Progress | None]] = None
    network: Network = None
    heads: Heads = None
    image_size: Annotated[tuple[int, ...] | None, COUNT] = None
    """Side, or height and width, of the images in px. By default the size that the encoder was trained at;
    at another size its position embeddings are resampled."""

    def arguments(self, progress: Progress) -> dict[str, Any]:
        """As the functions of `lamina.features` and `embed` take them, the network's options as one."""
        given = {name: value for name, value in vars(self).items() if name not in ("network", "heads")}
        return {**given, "encoder": network_options(self.network, self.heads), "progress": progress}


@dataclass(frozen=True)
class PretrainArguments:
    """Pre-train a Vision Transformer on a folder of images."""

    data: tyro.conf.Positional[Images]
    out: Path | None = None
    """Folder of the run: a new one, or with --resume that of a run. By default runs/NAME, named after the
    images: runs/photos for photos/."""
    recipe: str | None = None
    """Method and schedule to start from (`lamina recipes` lists them), such as mae. fast and fast-mff are MAE
    without and with MFF and with a cheaper decoder, for the shortest training time. By default mae, with
    settings that fit the images and the machine for all options that are not given; with --resume the run's
    own."""
    config: Path | None = None
    """YAML file with fields of the recipe, such as the recipe.yaml of a run. Options of the command line
    override it."""
    resume: bool = False
    """Continue the run in --out exactly where it stopped; start it where there is none."""
    overwrite: bool = False
    """Replace the run in --out once the new run has taken its first step."""
    init: str | None = None
    """Weights to initialise the encoder from: a run, an exported file, third-party weights (see `lamina
    inspect`), or timm/NAME for the published weights of a timm model. By default the weights are random."""
    time: str | None = None
    """Wall-clock time that the run is to take, such as 2h, 90m or 1h30m, in place of --epochs and
    --max-steps: the speed of real steps is measured first, and the number of steps follows from it."""
    dry_run: bool = False
    """Print the complete recipe, the number of steps, the memory and an estimate of the time, and train
    nothing."""
    fields: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        return self.out or default_run_folder(self.data)


@dataclass(frozen=True)
class TrainingArguments(Generic[R]):
    """A model, data, the folder of a training, and any field of its recipe."""

    model: tyro.conf.Positional[Model]
    data: tyro.conf.Positional[Labelled]
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/PROTOCOL-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from (`lamina recipes` lists them). By default the published one for networks of the
    model's size, where there is one."""
    config: Path | None = None
    """YAML file with fields of the recipe. Options of the command line override it."""
    network: Network = None
    heads: Heads = None
    resume: bool = False
    """Continue the training in its folder exactly where it stopped; start it where there is none."""
    overwrite: bool = False
    """Replace the training in its folder."""
    dry_run: bool = False
    """Print the complete recipe, the number of steps and the memory, and train nothing."""
    json: Json = None
    fields: Annotated[R, tyro.conf.arg(name="")] = tyro.MISSING

    @property
    def options(self) -> EncoderOptions | None:
        """The network's options, for a weights file that does not name them."""
        return network_options(self.network, self.heads)

    @property
    def run_options(self) -> RunOptions:
        """Where the training is and how it goes on; seed, device and workers stand in the recipe too."""
        return RunOptions(self.out, self.resume, self.overwrite, self.fields.train.seed)


A = TypeVar("A", bound=TrainingArguments[Any])


@dataclass(frozen=True)
class LabelTrainingArguments(TrainingArguments[FinetuneRecipe]):
    """Train on labels from a pre-trained encoder, then test once."""


@dataclass(frozen=True)
class SegmentArguments(TrainingArguments[SegmentRecipe]):
    """Train a segmentation head on a pre-trained encoder, or store patches for kNN, then test once.

    --head chooses a recipe for small images with that head, at the image size that the encoder was trained
    at. --recipe takes a published one: ade20k-linear, ade20k-upernet, ade20k-dpt or ade20k-knn. The score is
    the mean IoU of the classes over the test images.
    """

    data: tyro.conf.Positional[str]
    """Images with masks: root/images/training/ and root/annotations/training/ (ADE20K), or
    root/train/images/ and root/train/masks/, each with a validation part; or sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/segment-HEAD-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from; by default HEAD-small."""


@dataclass(frozen=True)
class DetectArguments(TrainingArguments[DetectRecipe]):
    """Train Mask R-CNN on a pre-trained encoder, as ViTDet does, then test once.

    By default the heads are small and the image size is the one that the encoder was trained at
    (detect-small). --recipe takes those of ViTDet for COCO: coco-vitdet-b, -l, -h. The score is COCO's mean
    average precision of boxes; that of masks is reported with it.
    """

    data: tyro.conf.Positional[str]
    """Images with objects: root/annotations/instances_{train,val}*.json and root/{train,val}*/ (COCO), or
    sample:doom."""
    out: Path | None = None
    """Folder of the training; by default RUN/evaluations/detect-DATA-seedS."""
    recipe: str | None = None
    """Recipe to start from; by default detect-small."""


def parse_training(
    kind: type[A],
    verb: str,
    args: Sequence[str],
    first: TrainingRecipe,
    of_model: Callable[[A], TrainingRecipe] | None = None,
) -> A:
    """Arguments of `lamina evaluate VERB`: a recipe, then --config, then the options given.

    Args:
        first: the recipe that is known before the arguments are parsed.
        of_model: the recipe by the parsed arguments, in place of the first one where no --recipe is given.
            It may read the model: by then mistakes in the arguments are found.

    Raises:
        LaminaError: in one line, for arguments that cannot be used.
    """
    args = long_names(args)
    check_fields(given_fields(args), first, verb)

    def parsed(recipe: TrainingRecipe) -> tuple[A, Start[TrainingRecipe]]:
        start = with_config(recipe, args, without_old_fields)
        default = kind(model=tyro.MISSING, data=tyro.MISSING, fields=start.recipe)
        return parse(kind, args, f"lamina evaluate {verb}", default), start

    arguments, start = parsed(first)
    if of_model is not None and peek(args, "--recipe") is None:
        arguments, start = parsed(of_model(arguments))
    start.check(arguments.fields)
    return arguments


def given_fields(args: Sequence[str]) -> list[str]:
    """Of the options given, the fields of a recipe that they would be; --encoder.heads is of the model."""
    flags = [arg.partition("=")[0].removeprefix("--") for arg in args if arg.startswith("--")]
    names = [flag.replace("-", "_").replace(".no_", ".") for flag in flags]
    return [name for name in names if name != "encoder.heads"]
