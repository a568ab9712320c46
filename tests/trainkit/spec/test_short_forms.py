"""A bare word is a kind; a change of kind begins its section anew; other libraries' words lead to ours."""

import pytest

from trainkit.spec import SpecError, parse_spec
from trainkit.spec.catalog import SECTIONS, kinds
from trainkit.spec.patch import in_order, merge_patch, with_value
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS

MINIMAL = {"dataset": "ds_1", "model": {"kind": "mlp"}}
LISTS = ("preprocess", "augment", "early_stop")
SHORT = [
    (section, model.model_fields["kind"].default)
    for section, union in SECTIONS.items()
    for model in kinds(union)
    if not any(field.is_required() for field in model.model_fields.values())
    and model.model_fields["kind"].default != "pretrained"  # it names a source
]


def document(section, value):
    if section == "init":
        return MINIMAL | {"model": {"kind": "mlp", "init": value}}
    return MINIMAL | {section: [value] if section in LISTS else value}


@pytest.mark.parametrize(("section", "kind"), SHORT)
def test_a_bare_word_is_the_kind_in_every_section(section, kind):
    assert parse_spec(document(section, kind)) == parse_spec(document(section, {"kind": kind}))


@pytest.mark.parametrize("section", LISTS)
def test_one_step_alone_is_a_list_of_one(section):
    kind = next(kind for name, kind in SHORT if name == section)
    listed = parse_spec(document(section, {"kind": kind}))
    assert parse_spec(MINIMAL | {section: kind}) == parse_spec(MINIMAL | {section: {"kind": kind}}) == listed


@pytest.mark.parametrize("name", TORCHVISION_CLASSIFIERS)
def test_a_name_of_torchvision_is_a_model(name):
    assert (
        parse_spec(MINIMAL | {"model": name}).model
        == parse_spec(MINIMAL | {"model": {"kind": "torchvision", "name": name}}).model
    )
    assert parse_spec(MINIMAL | {"model": {"kind": name, "dropout": 0.1}}).model.name == name


def test_another_kind_begins_its_section_anew():
    before = MINIMAL | {"optimizer": {"kind": "adam", "lr": 0.5, "betas": [0.5, 0.9]}, "model": "resnet18"}
    assert merge_patch(before, {"optimizer": "sgd"})["optimizer"] == {"kind": "sgd"}
    assert merge_patch(before, {"optimizer": {"kind": "sgd", "momentum": 0.9}})["optimizer"] == {
        "kind": "sgd",
        "momentum": 0.9,
    }
    assert merge_patch(before, {"optimizer": {"lr": 0.1}})["optimizer"]["betas"] == [0.5, 0.9]
    assert merge_patch(before, {"model": "mlp"})["model"] == {"kind": "mlp"}
    inner = MINIMAL | {"model": {"kind": "mlp", "init": {"kind": "normal", "std": 0.1}}}
    assert merge_patch(inner, {"model": {"init": {"kind": "he_normal"}}})["model"]["init"] == {"kind": "he_normal"}


def test_a_patch_goes_into_what_a_short_form_stands_for():
    before = {"dataset": "ds_1", "split": "8:1:1", "model": "mlp", "optimizer": "adam"}
    after = merge_patch(before, {"dataset": {"target": "y"}, "split": {"seed": 3}, "optimizer": {"lr": 0.1}})
    assert parse_spec(after) == parse_spec(
        {
            "dataset": {"id": "ds_1", "target": "y"},
            "split": {"train": 8, "validation": 1, "test": 1, "seed": 3},
            "model": {"kind": "mlp"},
            "optimizer": {"kind": "adam", "lr": 0.1},
        }
    )


def test_a_value_at_a_pointer_to_a_kind_begins_its_section_anew_before_other_values():
    before = MINIMAL | {"optimizer": {"kind": "adam", "betas": [0.5, 0.9]}}
    values = {"/optimizer/lr": 0.2, "/optimizer/kind": "sgd"}
    for pointer in sorted(values, key=in_order):
        before = with_value(before, pointer, values[pointer])
    assert before["optimizer"] == {"kind": "sgd", "lr": 0.2}


FIELD_WORDS = [
    ("epochs", "", "train.epochs"),
    ("max_iter", "", "train.epochs"),
    ("n_epochs", "train", "epochs"),
    ("units", "model", "hidden"),
    ("hidden_layer_sizes", "model", "hidden"),
    ("hidden_layer_sizes", "", "model.hidden"),
    ("activation", "", "model.activation"),
    ("dropout", "", "model.dropout"),
    ("dropout_rate", "model", "dropout"),
    ("batch_norm", "model", "norm"),
    ("kernel_initializer", "model", "init"),
    ("learning_rate", "", "optimizer.lr"),
    ("learning_rate", "optimizer", "lr"),
    ("lr", "train", "optimizer.lr"),
    ("weight_decay", "optimizer", "regularize.weight_decay"),
    ("weight_decay", "", "regularize.weight_decay"),
    ("beta_1", "optimizer", "betas"),
    ("nesterov", "", "optimizer.nesterov"),
    ("momentum", "", "optimizer.momentum"),
    ("alpha", "", "regularize.l2"),
    ("C", "", "model.c"),
    ("batch_size", "", "train.batch_size"),
    ("validation_split", "", "split.validation"),
    ("test_size", "split", "test"),
    ("random_state", "", "train.seed"),
    ("callbacks", "", "early_stop"),
    ("patience", "", "early_stop"),
    ("criterion", "", "loss"),
    ("lr_scheduler", "", "schedule"),
    ("class_weight", "", "balance"),
    ("gpus", "", "resources.device"),
    ("clipnorm", "optimizer", "train.clip_norm"),
    ("transforms", "", "augment"),
    ("scaler", "", "preprocess"),
    ("target", "", "dataset.target"),
    ("metrics", "", "train.monitor"),
    ("optimzer", "", "optimizer"),
]


@pytest.mark.parametrize(("word", "section", "ours"), FIELD_WORDS)
def test_a_field_of_another_library_leads_to_ours(word, section, ours):
    whole = {"model": {"kind": "mlp"}, "optimizer": {"kind": "adam"}}
    place = whole | {section: {**whole.get(section, {}), word: 1}} if section else whole | {word: 1}
    with pytest.raises(SpecError) as caught:
        parse_spec(MINIMAL | place)
    problem = next(one for one in caught.value.problems if one.code == "unknown_field")
    assert problem.pointer == f"/{section}/{word}".replace("//", "/")
    assert f'Did you mean "{ours}"?' in problem.hint


@pytest.mark.parametrize("word", ["shuffle", "verbose", "num_classes", "input_shape"])
def test_what_is_decided_otherwise_is_said(word):
    with pytest.raises(SpecError) as caught:
        parse_spec(MINIMAL | {word: 1})
    assert caught.value.problems[0].hint.startswith("Leave it out")


KIND_WORDS = [
    ("optimizer", "Adam", "adam"),
    ("optimizer", "RMSProp", "rmsprop"),
    ("optimizer", "AdamW", "adamw"),
    ("optimizer", "momentum", "sgd"),
    ("loss", "categorical_crossentropy", "cross_entropy"),
    ("loss", "CrossEntropyLoss", "cross_entropy"),
    ("loss", "BCEWithLogitsLoss", "binary_cross_entropy"),
    ("loss", "mean_squared_error", "mse"),
    ("loss", "SmoothL1Loss", "huber"),
    ("schedule", "CosineAnnealingLR", "cosine"),
    ("schedule", "ReduceLROnPlateau", "reduce_on_plateau"),
    ("schedule", "StepLR", "step"),
    ("model", "ResNet50", "resnet50"),
    ("model", "EfficientNetB0", "efficientnet_b0"),
    ("model", "MLPClassifier", "mlp"),
    ("model", "LogisticRegression", "linear"),
    ("model", "xgboost", "gradient_boosting"),
    ("model", "SVC", "rbf_svm"),
    ("early_stop", "EarlyStopping", "patience"),
    ("early_stop", "TerminateOnNaN", "diverged"),
    ("augment", "RandomHorizontalFlip", "horizontal_flip"),
    ("augment", "RandomRotation", "rotate"),
    ("preprocess", "StandardScaler", "z_score"),
    ("preprocess", "MinMaxScaler", "min_max"),
    ("init", "glorot_uniform", "xavier_uniform"),
    ("init", "kaiming_normal", "he_normal"),
    ("init", "HeNormal", "he_normal"),
]


@pytest.mark.parametrize(("section", "word", "ours"), KIND_WORDS)
def test_a_kind_of_another_library_leads_to_ours(section, word, ours):
    with pytest.raises(SpecError) as caught:
        parse_spec(document(section, word))
    (problem,) = caught.value.problems
    assert problem.code == "unknown_kind"
    assert problem.hint.startswith(f'Did you mean "{ours}"?')


@pytest.mark.parametrize(
    ("field", "word", "ours"),
    [
        ("activation", "swish", "silu"),
        ("activation", "LeakyReLU", "leaky_relu"),
        ("activation", "logistic", "sigmoid"),
        ("norm", "BatchNorm2d", "batch"),
        ("norm", "layer_norm", "layer"),
    ],
)
def test_a_choice_of_another_library_leads_to_ours(field, word, ours):
    with pytest.raises(SpecError) as caught:
        parse_spec(MINIMAL | {"model": {"kind": "cnn", field: word}})
    assert caught.value.problems[0].hint.startswith(f'Did you mean "{ours}"?')


def test_the_hint_tells_the_two_forms_of_momentum_apart():
    with pytest.raises(SpecError) as caught:
        parse_spec(MINIMAL | {"optimizer": {"kind": "momentum"}})
    assert "{kind: sgd, momentum: 0.9}" in caught.value.problems[0].hint
    assert "ema_momentum is the mean" in caught.value.problems[0].hint


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(SpecError, match="needs a `momentum` above 0"):
        parse_spec(MINIMAL | {"optimizer": {"kind": "sgd", "nesterov": True}})
