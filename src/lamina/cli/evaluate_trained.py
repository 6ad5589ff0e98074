"""The verbs `lamina evaluate NAME` of protocols that train from a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

from lamina.cli.arguments import (
    A,
    DetectArguments,
    LabelTrainingArguments,
    SegmentArguments,
    parse_training,
)
from lamina.cli.output import check_json, print_scores, say
from lamina.cli.parse import peek
from lamina.evaluate.detect.recipes import detect_recipe
from lamina.evaluate.finetune.recipes import FinetuneRecipe, recipe_of
from lamina.evaluate.protocol import Trained
from lamina.evaluate.segment.recipes import segment_recipe


def train_on_labels(verb: str, args: Sequence[str]) -> int:
    """`lamina evaluate linear-mae`, `attentive` and `finetune`; returns the exit code, raises
    `LaminaError`."""
    protocol = cast(Trained, verb)
    arguments = parse_label_training(protocol, args)
    from lamina.api import report_callbacks
    from lamina.cli.dry_run import describe_on_labels
    from lamina.evaluate.finetune.protocol import evaluate_trained

    evaluate = partial(evaluate_trained, protocol, callbacks=report_callbacks)
    return _train_and_test(arguments, describe_on_labels, evaluate)


def parse_label_training(protocol: Trained, args: Sequence[str]) -> LabelTrainingArguments:
    """Arguments of `lamina evaluate PROTOCOL`; raises as `parse_training`. The first recipe is the one that
    is named, or the one for networks of any size."""

    def of_model(arguments: LabelTrainingArguments) -> FinetuneRecipe:
        from lamina.evaluate.finetune.adapt import protocol_recipe
        from lamina.interop.load import load_encoder

        backbone = load_encoder(arguments.model, encoder=arguments.options, pretrained=False)
        return protocol_recipe(protocol, backbone)

    first = recipe_of(protocol, peek(args, "--recipe") or protocol)
    return parse_training(LabelTrainingArguments, protocol, args, first, of_model)


def segment(verb: str, args: Sequence[str]) -> int:
    """`lamina evaluate segment`; returns the exit code, raises `LaminaError`."""
    first = segment_recipe(peek(args, "--recipe"), peek(args, "--head"))
    arguments = parse_training(SegmentArguments, verb, args, first)
    from lamina.cli.dry_run import describe_segment
    from lamina.evaluate.segment.protocol import evaluate_segment

    return _train_and_test(arguments, describe_segment, evaluate_segment, dense=True)


def detect(verb: str, args: Sequence[str]) -> int:
    """`lamina evaluate detect`; returns the exit code, raises `LaminaError`."""
    arguments = parse_training(DetectArguments, verb, args, detect_recipe(peek(args, "--recipe")))
    from lamina.cli.dry_run import describe_detect
    from lamina.evaluate.detect.protocol import evaluate_detect

    return _train_and_test(arguments, describe_detect, evaluate_detect, dense=True)


def _train_and_test(
    arguments: A, describe: Callable[[A], None], evaluate: Callable[..., Any], dense: bool = False
) -> int:
    """Train and test, and print the score, or with --dry-run print what would be done.

    Args:
        evaluate: model, data and `RunOptions` to a score, by `recipe` and `encoder`.
        dense: whether `evaluate` has a `progress`, and a folder to print.
    """
    if arguments.dry_run:
        describe(arguments)
        return 0
    check_json(arguments.json)
    from lamina.cli.progress import ImagesBar
    from lamina.train.distributed import is_main

    with ImagesBar() as bar:
        score = evaluate(
            arguments.model,
            arguments.data,
            arguments.run_options,
            recipe=arguments.fields,
            encoder=arguments.options,
            **({"progress": bar} if dense else {}),
        )
    if is_main():
        print_scores((score,), arguments.json)
        if dense:
            say(f"folder {score.settings['folder']}")
    return 0
