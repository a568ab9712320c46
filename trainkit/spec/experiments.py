"""What many jobs as one are asked for: the kinds of experiments and their spaces. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from trainkit.spec.base import SpecModel
from trainkit.spec.metrics import split_metric
from trainkit.spec.patch import full_form
from trainkit.spec.problems import Problem, SpecError, problems_from_validation, shown
from trainkit.spec.synonyms import suggest_kind
from trainkit.spec.text import Labels

MOST_CHILDREN = 1000
Pointer = Annotated[str, Field(pattern=r"^(/[^/]+)+$", max_length=200)]
"""Where in the job spec a value goes: a JSON pointer such as /optimizer/lr."""


class Common(SpecModel):
    """Fields of every experiment."""

    name: str = Field("", max_length=200)
    """A name for people."""
    labels: Labels = Field(default_factory=dict)
    """Free key-value pairs to filter lists by; the jobs have them, too."""
    spec: dict[str, JsonValue]
    """The job spec that all jobs begin with; `group` is set by the service."""
    metric: str | None = None
    """What the jobs are told apart by, such as val_loss; left out: what the kind is about."""
    parallel: Annotated[int, Field(ge=1, le=MOST_CHILDREN)] = 8
    """Jobs that wait or run at the same time."""

    @field_validator("spec", mode="before")
    @classmethod
    def written_out(cls, value: object) -> object:
        return full_form(value)

    @model_validator(mode="after")
    def known_metric(self) -> Common:
        if self.metric is not None:
            split_metric(self.metric)
        return self


class Resampling(Common):
    """Several trainings on the same data: one test part is held out of all, the rest is drawn anew for each.

    The test part is the one that the dataset ships, or is drawn once by `spec.split.seed`. Each trial keeps the weights
    that are best on its own validation part. Variants are compared on the validation parts; the test part is reported.
    """

    variants: dict[Annotated[str, Field(min_length=1, max_length=64)], dict[str, JsonValue]] = Field(
        default_factory=dict, max_length=32
    )
    """Name -> JSON merge patch of `spec`: trained on the same cuts and compared with it, in pairs."""

    @model_validator(mode="after")
    def another_name_than_the_spec(self) -> Resampling:
        if "base" in self.variants:
            raise ValueError("the variant of `spec` itself is called base: name this one otherwise")
        return self


class KFold(Resampling):
    """k-fold cross-validation of all that is not test: each fold validates once (scikit-learn's StratifiedKFold, KFold)."""

    kind: Literal["kfold"] = "kfold"
    folds: Annotated[int, Field(ge=2, le=100)] = 5
    """How many folds."""
    repeats: Annotated[int, Field(ge=1, le=100)] = 1
    """How many times the samples are cut into folds, each time by the next `split.resample_seed`."""

    @property
    def children(self) -> int:
        return self.folds * self.repeats * (1 + len(self.variants))


class MonteCarlo(Resampling):
    """Repeated random sub-sampling: training and validation are drawn anew each time; the best model is named, too."""

    kind: Literal["monte_carlo"] = "monte_carlo"
    draws: Annotated[int, Field(ge=2, le=500)] = 10
    """How many draws; `split.resample_seed` counts up. Where `split` names no shares, 80 % train and 20 % validate."""

    @property
    def children(self) -> int:
        return self.draws * (1 + len(self.variants))


class Range(SpecModel):
    """Numbers from `low` to `high`."""

    type: Literal["float", "int"] = "float"
    """Whole numbers or any."""
    low: float
    """The least."""
    high: float
    """The largest, itself included."""
    log: bool = False
    """Equal chances for equal ratios, as rates and penalties want it."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Only low, low + step ...; not together with log."""

    @model_validator(mode="after")
    def in_order(self) -> Range:
        if self.low >= self.high:
            raise ValueError("`low` must be below `high`")
        if self.log and self.low <= 0:
            raise ValueError("a logarithmic range begins above 0")
        if self.log and self.step is not None:
            raise ValueError("`log` and `step` do not go together")
        if self.type == "int" and any(x is not None and x % 1 for x in (self.low, self.high, self.step)):
            raise ValueError("a range of whole numbers has whole `low`, `high` and `step`")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """(low, high) as the spec will have them."""
        return (int(self.low), int(self.high)) if self.type == "int" else (self.low, self.high)


Choices = Annotated[list[JsonValue], Field(min_length=1, max_length=MOST_CHILDREN)]
"""Values of any form, one of which is taken."""
Space = Annotated[dict[Pointer, Range | Choices], Field(min_length=1, max_length=32)]


class Sweep(Common):
    """Values tried in a space; the best is told by the validation part."""

    @model_validator(mode="after")
    def test_is_held_out(self) -> Sweep:
        if self.metric is not None and self.metric.startswith("test_"):
            raise ValueError(f"the test part must not decide anything: use val_{self.metric.removeprefix('test_')}")
        return self


class Grid(Sweep):
    """Every combination of the values, the last pointer's changing fastest."""

    kind: Literal["grid"] = "grid"
    space: Annotated[dict[Pointer, Choices], Field(min_length=1, max_length=32)]
    """JSON pointer into the job spec -> values."""

    @property
    def children(self) -> int:
        total = 1
        for values in self.space.values():
            total *= len(values)
        return total


class Sampled(Sweep):
    """Trials drawn one after the other: the same seed and the same results give the same trials."""

    space: Space
    """JSON pointer into the job spec -> a list of values or `{low, high, log, type, step}`."""
    trials: Annotated[int, Field(ge=1, le=MOST_CHILDREN)] = 20
    """How many jobs."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the draws."""
    parallel: Annotated[int, Field(ge=1, le=MOST_CHILDREN)] = 4
    """Trials at the same time: a trial knows the results of all but the `parallel` - 1 before it, whichever end first."""

    @property
    def children(self) -> int:
        return self.trials


class RandomSearch(Sampled):
    """Independent draws (Bergstra and Bengio 2012)."""

    kind: Literal["random"] = "random"


class Tpe(Sampled):
    """Tree-structured Parzen estimator: draws where good trials were (Bergstra et al. 2011; Optuna's)."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: Annotated[int, Field(ge=0, le=MOST_CHILDREN)] = 10
    """So many first trials are drawn independently."""


class Asha(Sampled):
    """Asynchronous successive halving: of every rung only the best share goes on (Li et al. 2020; Optuna's form)."""

    kind: Literal["asha"] = "asha"
    sampler: Literal["random", "tpe"] = "random"
    """How values are drawn."""
    min_epochs: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Epochs of the first rung; each further one is `reduction_factor` times as long."""
    reduction_factor: Annotated[int, Field(ge=2, le=100)] = 3
    """One in so many goes on."""


class Baselines(Common):
    """Cheap models beside the spec's own, which a network has to beat.

    Linear, linear SVM and small MLP; of tables and vectors also scikit-learn's gradient boosting and RBF SVM.
    """

    kind: Literal["baselines"] = "baselines"


class EnsembleOf(Common):
    """Members that differ in their seed, or the best of another experiment, and the model that averages them."""

    kind: Literal["ensemble"] = "ensemble"
    spec: dict[str, JsonValue] = Field(default_factory=dict)
    """The job spec of the members; left out with `experiment`."""
    members: Annotated[int, Field(ge=2, le=64)] = 5
    """How many."""
    experiment: Annotated[str, Field(pattern=r"^exp_[a-z0-9]{1,60}$")] | None = None
    """Take the best jobs of this experiment, which has ended, in place of training members."""
    method: Literal["average", "vote"] = "average"
    """`average` of the probabilities (or values); `vote` of the labels."""

    @model_validator(mode="after")
    def one_source(self) -> EnsembleOf:
        if bool(self.spec) == (self.experiment is not None):
            raise ValueError("give either `spec` to train members, or `experiment` to take its best")
        return self


class Autopilot(Sweep):
    """Train, diagnose, apply what the diagnosis says, train again; keep the best, and say why at each step."""

    kind: Literal["autopilot"] = "autopilot"
    jobs: Annotated[int, Field(ge=1, le=100)] = 8
    """At most so many jobs, the first of which is `spec` as it is."""
    seconds: Annotated[float, Field(gt=0)] | None = None
    """No further job once this many seconds have been spent on training."""
    parallel: Literal[1] = 1
    """Each step rests on the one before."""


ExperimentSpec = Annotated[
    KFold | MonteCarlo | Grid | RandomSearch | Tpe | Asha | Baselines | EnsembleOf | Autopilot,
    Field(discriminator="kind"),
]
Plan = KFold | MonteCarlo | Grid | RandomSearch | Tpe | Asha | Baselines | EnsembleOf | Autopilot
KINDS: dict[str, type[Plan]] = {model.model_fields["kind"].default: model for model in get_args(Plan)}


def parse_experiment(document: Any) -> Plan:
    """The plan that a document asks for. Raises SpecError with everything that is wrong with it but for `spec` itself."""
    if not isinstance(document, Mapping):
        raise SpecError([Problem("", "not_an_object", "an experiment is an object", "See /v1/catalog.")])
    kind, known = document.get("kind"), f"Known kinds: {', '.join(KINDS)}."
    if kind is None:
        raise SpecError([Problem("/kind", "missing_kind", "`kind` is missing", known)])
    if not isinstance(kind, str) or kind not in KINDS:
        hint = f"{suggest_kind(kind, KINDS) if isinstance(kind, str) else ''} {known}".strip()
        raise SpecError([Problem("/kind", "unknown_kind", f"unknown kind {shown(kind)}", hint)])
    try:
        plan = KINDS[kind].model_validate(document)
    except ValidationError as error:
        raise SpecError(problems_from_validation(error, document, KINDS[kind])) from None
    children = getattr(plan, "children", 0)
    if children > MOST_CHILDREN:
        message = f"that makes {children} jobs, the limit is {MOST_CHILDREN}"
        raise SpecError([Problem("", "too_many_jobs", message, "Take fewer values, folds or variants.")])
    return plan
