"""The verbs of the command line, a row each: the overview, the documentation and the tests read `VERBS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lamina.analyze.catalog import ANALYSES
from lamina.evaluate.catalog import PROTOCOLS
from lamina.evaluate.protocol import Protocol


@dataclass(frozen=True)
class Verb:
    """One verb. Its function is imported when it runs, and imports what computes only after its arguments
    are parsed: torch takes seconds to import, and help and messages about arguments do not need it."""

    name: str
    """One word or two, as they are typed."""
    help: str
    """What it does, as a short sentence without a full stop."""
    function: str
    """MODULE:FUNCTION. The function returns the exit code."""
    printed: bool = False
    """Whether its result is what it prints: where that cannot be written, it ends with exit code 2."""
    parses: bool = False
    """Whether the function takes the verb's last word and the arguments as they were typed, since the
    defaults of its options follow from its arguments. The arguments of others are parsed by their types."""

    def load(self) -> Callable[..., Any]:
        """The function."""
        module, _, name = self.function.partition(":")
        return getattr(import_module(module), name)  # type: ignore[no-any-return]


_PROTOCOLS = {
    **dict.fromkeys(("knn", "linear", "fewshot", "robustness"), "lamina.cli.evaluate:{}"),
    **dict.fromkeys(("linear-mae", "attentive", "finetune"), "lamina.cli.evaluate_trained:train_on_labels"),
    **dict.fromkeys(("segment", "detect"), "lamina.cli.evaluate_trained:{}"),
}
"""The functions of the protocols that have a verb of their own."""


def _evaluate(row: Protocol) -> Verb:
    """The verb of one protocol. Those that train from a recipe parse their arguments; others print."""
    function, trains = _PROTOCOLS[row.name].format(row.name), bool(row.recipe)
    return Verb(f"evaluate {row.name}", row.help.rstrip("."), function, printed=not trains, parses=trains)


def _study(name: str, text: str) -> Verb:
    return Verb(f"study {name}", text, "lamina.cli.study:study", parses=True)


VERBS = (
    Verb("pretrain", "Pre-train on a folder of images", "lamina.cli.pretrain:pretrain", parses=True),
    Verb(
        "plan",
        "Print the work, memory and time of a pre-training on GPUs",
        "lamina.cli.plan:plan",
        printed=True,
        parses=True,
    ),
    *(_evaluate(row) for row in PROTOCOLS if row.name in _PROTOCOLS),
    Verb(
        "evaluate all",
        "Run several models through several protocols: one table",
        "lamina.cli.evaluate:compare_all",
    ),
    Verb("reconstruct", "Save reconstructions of masked images", "lamina.cli.models:reconstruct"),
    Verb("embed", "Save one feature vector per image", "lamina.cli.models:embed"),
    Verb(
        "data check",
        "Read every image and list the files that cannot be read",
        "lamina.cli.data:check",
        printed=True,
    ),
    Verb("data pack", "Shrink all images into one file that is read faster", "lamina.cli.data:pack"),
    Verb("report", "Write the HTML report of one run or of several", "lamina.cli.models:report"),
    Verb("export", "Export the encoder as timm weights", "lamina.cli.models:export"),
    *(
        Verb(f"analyze {row.name}", row.help.rstrip("."), "lamina.cli.analyze:analyze", parses=True)
        for row in ANALYSES
    ),
    _study("feature-bias", "Compare fusion weights by target: pixels, features, labels"),
    _study("pair", "Compare MAE and PixMIM, each with and without MFF"),
    _study("fusion", "Compare fused blocks, projections and poolings"),
    Verb("tokenizer train", "Train a discrete tokenizer for BEiT", "lamina.cli.tokenizer:train"),
    Verb(
        "inspect",
        "Describe a file or folder, and its usable weights",
        "lamina.cli.info:inspect",
        printed=True,
    ),
    Verb("methods", "List all methods with their parts", "lamina.cli.info:methods", printed=True),
    Verb("recipes", "List all recipes that --recipe takes", "lamina.cli.info:recipes", printed=True),
    Verb("demo", "Pre-train a small model on photographs and write its report", "lamina.cli.demo:demo"),
)
"""In the order of the overview."""
