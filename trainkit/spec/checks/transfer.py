"""What a spec may not take over from another model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.facts import (
    DatasetFacts,
    class_counts,
    is_classification,
)
from trainkit.spec.job import JobSpec
from trainkit.spec.models import (
    body_block_names,
)
from trainkit.spec.problems import Problem
from trainkit.spec.training import BlockRange, Blocks, chosen_blocks


def kept_head_problem(source: Sequence[str] | None, target: Sequence[str] | None) -> Problem | None:
    """Why `head: keep` cannot give each class of `target` its row of the source's output layer; None where it can.

    Classes are told by name, so that another order or fewer of them are no obstacle. None: the outputs are numbers, or
    the source does not name its classes.
    """
    hint, where = 'Use "head": "new".', "/start_from/head"
    if target is None:
        if source is None:
            return None
        return Problem(where, "head_of_classes", "the source's head tells classes, and this job predicts numbers", hint)
    if source is None:
        message = "the source does not say which class each output of its head stands for"
        return Problem(
            where, "classes_unknown", message, f"{hint[:-1]}, or give the weight file metadata: `classes`, a JSON list."
        )
    unknown = [name for name in target if name not in set(source)]
    if unknown:
        shown = f"{', '.join(unknown[:5])}{' ...' if len(unknown) > 5 else ''}"
        known = f"{', '.join(source[:10])}{' ...' if len(source) > 10 else ''}"
        return Problem(where, "classes_differ", f"the source's head does not know {shown}; it knows {known}", hint)
    return None


def classes_of(spec: JobSpec, facts: DatasetFacts) -> tuple[str, ...] | None:
    """Names of the classes that a resolved spec's job will tell apart, by output; None for numbers."""
    if spec.task is None or not is_classification(spec.task):
        return None
    return tuple(class_counts(spec, facts) or ())


def transfer_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the weights that training begins with."""
    spec = context.spec
    init = getattr(spec.model, "init", None)
    if spec.start_from is not None and init is not None:
        yield Problem("/model/init", "two_sources", "`start_from` already gives the weights", "Remove `init`.")
    if spec.model.kind == "ensemble" and spec.start_from is not None:
        yield Problem("/start_from", "nothing_to_train", "an ensemble is not trained", "Remove it.")
    start = spec.start_from
    if start is not None:
        chosen: list[tuple[str, Blocks]] = [("/start_from/freeze", "none" if start.freeze == "body" else start.freeze)]
        chosen += [(f"/start_from/phases/{index}/unfreeze", one.unfreeze) for index, one in enumerate(start.phases)]
        for where, blocks in chosen:
            if spec.model.kind == "multimodal" and isinstance(blocks, int | BlockRange) and blocks:
                names = ", ".join(body_block_names(spec.model)[:10])
                message = "two encoders beside each other have no first and last blocks"
                yield Problem(where, "no_block_order", message, f"Name the blocks, such as {names}.")
                continue
            try:
                chosen_blocks(body_block_names(spec.model), blocks)
            except ValueError as error:
                yield Problem(where, "no_such_block", str(error), "Name blocks of the body, or fewer of them.")
    if spec.start_from is not None and spec.start_from.freeze == "none":
        for index, phase in enumerate(spec.start_from.phases):
            if phase.unfreeze == "none":
                yield Problem(
                    f"/start_from/phases/{index}/unfreeze",
                    "needs_freeze",
                    "this phase trains the head alone, but the body is not frozen",
                    'Say "freeze": "body", or "unfreeze": "all" in the phase.',
                )
