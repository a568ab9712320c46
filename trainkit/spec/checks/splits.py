"""What a spec may not ask of its split, its folds and the balance of its classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from trainkit.spec.checks.context import CheckContext
from trainkit.spec.facts import (
    class_counts,
    labelled_samples,
)
from trainkit.spec.problems import Problem, pointer
from trainkit.spec.synonyms import nearest


def split_problems(context: CheckContext) -> Iterator[Problem]:
    """Yield what is wrong with the parts, the folds and the balance of classes."""
    spec, (train, validation, test) = context.spec, context.parts
    if context.classification and context.outputs < 2:
        yield Problem("/dataset", "one_class", "the dataset has fewer than two classes", "Nothing can be told apart.")
    if train < 1:
        yield Problem("/split/train", "empty_part", "the training part would be empty", "Give it a larger share.")
    fractions, folds = spec.split.fractions, spec.split.folds
    if folds is not None:
        yield from _fold_problems(context, folds)
    for name, size, share in (("validation", validation, fractions[1]), ("test", test, fractions[2])):
        if size < 1 and share > 0 and not (context.facts.splits and spec.split.use_predefined):
            hint = f"Give it a larger share, or 0 for none; there are {labelled_samples(spec, context.facts)} samples."
            yield Problem(f"/split/{name}", "empty_part", f"the {name} part would be empty", hint)
    if spec.balance != "none" and not context.classification:
        yield Problem("/balance", "needs_classes", "balancing needs classes", 'Use "none" for regression.')
    elif isinstance(spec.balance, dict):
        yield from _class_weight_problems(spec.balance, list(class_counts(spec, context.facts) or ()))


def _class_weight_problems(weights: Mapping[str, float], classes: Sequence[str]) -> Iterator[Problem]:
    listing = f"Classes: {', '.join(classes[:30])}{' ...' if len(classes) > 30 else ''}."
    for name in weights:
        if name not in classes:
            hint = " ".join(part for part in (nearest(name, classes), listing) if part)
            yield Problem(pointer(["balance", name]), "unknown_class", f'the dataset has no class "{name}"', hint)
    if missing := [name for name in classes if name not in weights]:
        message = f"no weight is given for {', '.join(missing[:10])}{' ...' if len(missing) > 10 else ''}"
        yield Problem("/balance", "missing_class", message, "Give every class a weight; 1 changes nothing.")


def _fold_problems(context: CheckContext, folds: int) -> Iterator[Problem]:
    train, validation, _ = context.parts
    cut, largest = train + validation, max(class_sizes_in_folds(context), default=folds)
    if cut < folds:
        yield Problem("/split/folds", "too_many_folds", f"{cut} samples cannot be {folds} folds", "Use fewer.")
    elif largest < folds:
        hint = f"Use at most {max(2, int(largest))}, or split.stratify: false."
        yield Problem("/split/folds", "too_many_folds", f"no class has {folds} samples beside the test part", hint)


def class_sizes_in_folds(context: CheckContext) -> list[float]:
    """Expected samples of each class that the folds are cut from; nothing where they are not cut by class."""
    counts = class_counts(context.spec, context.facts)
    if not (context.classification and context.spec.split.stratify and counts):
        return []
    train, validation, _ = context.parts
    samples = labelled_samples(context.spec, context.facts)
    return [count * (train + validation) / max(1, samples) for count in counts.values()]
