"""The runs: a recipe of data, a spec, and the fault that was planted, or `healthy`.

Two halves: by `first` the rules were developed, `second` has other data sets, models and degrees of each fault.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Half = Literal["first", "second"]
Spec = dict[str, Any]
Z = {"preprocess": [{"kind": "z_score"}]}
STOP = {"early_stop": [{"kind": "diverged"}, {"kind": "patience", "patience": 6}]}


@dataclass(frozen=True, slots=True)
class Case:
    """`document` is the job spec without what all have in common."""

    name: str
    code: str
    half: Half
    recipe: Mapping[str, Any]
    document: Spec

    def spec(self, seed: int = 0) -> Spec:
        """As a client would submit it: on one thread of the CPU, cut 6:2:2 and in batches of 32 unless said otherwise."""
        train = {"batch_size": 32, "threads": 1, "seed": seed, **self.document.get("train", {})}
        split = self.document.get("split", {"train": 6, "validation": 2, "test": 2, "seed": seed})
        base = {"dataset": "d", "preprocess": [], "resources": {"device": "cpu"}}
        return {**base, **self.document, "train": train, "split": split}


def mlp(*hidden: int, **fields: Any) -> Spec:
    return {"model": {"kind": "mlp", "hidden": list(hidden), **fields}}


def model(kind: str, **fields: Any) -> Spec:
    return {"model": {"kind": kind, **fields}}


def rate(kind: str, lr: float, **fields: Any) -> Spec:
    return {"optimizer": {"kind": kind, "lr": lr, **fields}}


def epochs(count: int, **fields: Any) -> Spec:
    return {"train": {"epochs": count, **fields}}


def base(name: str, n: int | None = None, **plants: Any) -> dict[str, Any]:
    return {"base": name, **({"n": n} if n else {}), **plants}


def cut(train: float, validation: float, test: float) -> Spec:
    return {"split": {"train": train, "validation": validation, "test": test}}


def begun(kind: str, **fields: Any) -> dict[str, Any]:
    return {"init": {"kind": kind, **fields}}


DIGITS, CANCER, WINE, IRIS, DIABETES = (base(name) for name in ("digits", "cancer", "wine", "iris", "diabetes"))
PICTURES = base("digits", image=8)
VOWELS = base("vowels")
FASHION, CLOTHES = base("fashion", 2000), base("fashion", 1200, image=28)
HOUSES, ADULT, ROWS = base("california", 1500), base("adult", 1500), base("rows", 800)
WEAK = [9, 11, 14, 18, 19]
"""Columns of the breast cancer data that tell little: fractal dimension, errors of texture, smoothness, symmetry."""
SMALL_CNN = model("cnn", channels=[8, 16])

Entry = tuple[str, dict[str, Any], Spec]
FIRST: dict[str, list[Entry]] = {
    "overfitting": [
        ("cancer by heart", CANCER, Z | mlp(256, 128) | rate("adam", 3e-3) | epochs(50)),
        ("diabetes by heart", DIABETES, Z | mlp(256, 128) | rate("adam", 3e-3) | epochs(40)),
        ("few digits, wide", base("digits", 250), mlp(512, 256) | epochs(60)),
    ],
    "underfitting_model_bias": [
        ("digits through one unit", DIGITS, mlp(1, activation="tanh") | rate("adam", 0.01) | epochs(25)),
        ("digits under l2", DIGITS, mlp(64, 32) | {"regularize": {"l2": 400.0}} | epochs(20)),
    ],
    "optimization_failure": [
        ("digits, 40 plain layers", DIGITS, mlp(*[32] * 40) | rate("sgd", 0.1) | epochs(12)),
        ("cancer, 40 plain layers", CANCER, Z | mlp(*[24] * 40) | rate("sgd", 0.1) | epochs(12)),
    ],
    "learning_rate_too_high": [
        ("digits adam 0.5", DIGITS, mlp(64, 32) | rate("adam", 0.5) | epochs(8)),
        ("cancer sgd 30", CANCER, Z | mlp(32) | rate("sgd", 30.0) | epochs(10)),
        ("diabetes adam 1", DIABETES, Z | mlp(32, 16) | rate("adam", 1.0) | epochs(12)),
        ("cnn adam 0.3", PICTURES, SMALL_CNN | rate("adam", 0.3) | epochs(6)),
    ],
    "learning_rate_too_low": [
        ("digits adam 1e-6", DIGITS, mlp(64, 32) | rate("adam", 1e-6) | epochs(10)),
        ("vowels gru adam 1e-5", VOWELS, model("gru", hidden=32) | rate("adam", 1e-5) | epochs(6)),
        ("diabetes sgd 1e-4", DIABETES, Z | mlp(32) | rate("sgd", 1e-4) | epochs(15)),
    ],
    "vanishing_gradients": [
        ("digits, 8 sigmoids", DIGITS, mlp(*[32] * 8, activation="sigmoid") | rate("sgd", 0.1) | epochs(10)),
        (
            "cancer, small weights",
            CANCER,
            Z | mlp(*[32] * 6, **begun("normal", std=0.02)) | rate("sgd", 0.1) | epochs(12),
        ),
    ],
    "exploding_gradients": [
        ("digits normal 1", DIGITS, mlp(64, 64, 64, 32, **begun("normal", std=1.0)) | epochs(8)),
        ("diabetes uniform 1", DIABETES, Z | mlp(64, 64, 64, **begun("uniform", low=-1.0, high=1.0)) | epochs(10)),
    ],
    "dead_units": [
        ("digits, negative", DIGITS, mlp(64, 32, **begun("uniform", low=-0.3, high=-0.01)) | epochs(8)),
        ("cancer, negative", CANCER, Z | mlp(32, 32, 16, **begun("uniform", low=-0.4, high=-0.05)) | epochs(12)),
    ],
    "symmetric_initialization": [
        ("digits zeros", DIGITS, mlp(64, 32, **begun("zeros")) | epochs(8)),
        ("cancer alike", CANCER, Z | mlp(32, **begun("uniform", low=0.1, high=0.1000001)) | epochs(10)),
        ("cnn zeros", PICTURES, SMALL_CNN | model("cnn", channels=[8, 16], **begun("zeros")) | epochs(4)),
    ],
    "saturated_activations": [
        ("digits tanh normal 3", DIGITS, mlp(64, 64, activation="tanh", **begun("normal", std=3.0)) | epochs(15)),
        (
            "cancer sigmoid uniform",
            CANCER,
            Z | mlp(64, 64, activation="sigmoid", **begun("uniform", low=-3.0, high=3.0)) | epochs(15),
        ),
    ],
    "unscaled_inputs": [
        ("cancer raw sgd", CANCER, mlp(64, 32) | rate("sgd", 0.1) | epochs(15)),
        ("wine raw adam", WINE, mlp(32) | epochs(25)),
        ("digits times 1000", base("digits", factor=1000), mlp(64, 32) | epochs(10)),
    ],
    "label_noise": [
        ("digits 40 %", base("digits", noise=0.4), mlp(256, 128) | epochs(60)),
        ("digits 20 %", base("digits", noise=0.2), mlp(128, 64) | epochs(40)),
        ("cancer 30 %", base("cancer", noise=0.5), Z | mlp(128, 64) | epochs(50)),
    ],
    "class_imbalance": [
        ("rare cancer", base("cancer", rare={0: 40}, columns=WEAK), cut(4, 3, 3) | Z | mlp(16) | epochs(30)),
        ("rare digits", base("digits", rare={8: 15, 9: 15, 3: 15}), mlp(32) | epochs(12)),
    ],
    "distribution_mismatch": [
        ("digits with noise in the field", base("digits", change="noisy"), mlp(64) | epochs(20)),
        ("cancer shifted in the field", base("cancer", change="shifted"), Z | mlp(16) | epochs(20)),
    ],
    "leakage": [
        ("digits, a third seen", base("digits", 900, leak=0.35), mlp(64, 32) | epochs(20)),
        ("cancer, a tenth seen", base("cancer", leak=0.1), Z | mlp(16) | epochs(20)),
        ("wine three times", base("wine", copies=3), Z | mlp(16) | epochs(20)),
    ],
    "validation_too_small": [
        ("digits, 18", DIGITS, cut(98, 1, 1) | mlp(64, 32) | epochs(12)),
        ("cancer, 11", CANCER, cut(96, 2, 2) | Z | mlp(16) | epochs(20)),
        ("diabetes, 9", DIABETES, cut(96, 2, 2) | Z | mlp(16) | epochs(20)),
    ],
    "stopped_too_early": [
        ("digits, 3 epochs", DIGITS, mlp(64, 32) | epochs(3)),
        ("digits cnn, 5 epochs", PICTURES, SMALL_CNN | epochs(5)),
        ("vowels gru, 6 epochs", VOWELS, Z | model("gru", hidden=32) | epochs(6)),
    ],
    "wrong_loss": [
        ("digits by squares", DIGITS, mlp(64, 32) | {"loss": {"kind": "mse"}} | epochs(12)),
        ("diabetes with outliers", base("diabetes", outliers=0.03), Z | mlp(16, dropout=0.1) | epochs(25)),
    ],
    "healthy": [
        ("digits mlp", DIGITS, mlp(64, 32, dropout=0.2) | epochs(25)),
        ("digits linear", DIGITS, model("linear") | rate("adam", 0.01) | epochs(25)),
        ("digits cnn", PICTURES, SMALL_CNN | rate("adam", 3e-3) | epochs(12)),
        ("digits momentum", DIGITS, mlp(64) | rate("ema_momentum", 0.1) | epochs(30)),
        ("cancer mlp", CANCER, Z | mlp(16) | epochs(25) | STOP),
        ("cancer linear", CANCER, Z | model("linear") | rate("adam", 0.01) | epochs(25)),
        ("cancer svm", CANCER, Z | model("linear_svm") | rate("adam", 0.01) | {"regularize": {"l2": 1.0}} | epochs(25)),
        ("diabetes mlp", DIABETES, Z | mlp(16, dropout=0.2) | epochs(30) | STOP),
        ("diabetes linear", DIABETES, Z | model("linear") | rate("adam", 0.01) | epochs(30)),
        ("vowels gru", VOWELS, Z | model("gru", hidden=32) | rate("adam", 3e-3) | epochs(15) | STOP),
        ("digits batch norm", DIGITS, mlp(64, 32, norm="batch", dropout=0.2) | epochs(25) | STOP),
        ("digits tanh", DIGITS, mlp(48, activation="tanh") | epochs(25) | STOP),
    ],
}
SECOND: dict[str, list[Entry]] = {
    "overfitting": [
        ("few clothes, wide", base("fashion", 500), mlp(512, 256) | epochs(50)),
        ("adult by heart", base("adult", 700), Z | mlp(256, 128) | epochs(40)),
        ("few houses by heart", base("california", 400), Z | mlp(256, 128) | rate("adam", 3e-3) | epochs(50)),
    ],
    "underfitting_model_bias": [
        ("clothes through one unit", FASHION, mlp(1, activation="tanh") | rate("adam", 0.01) | epochs(20)),
        ("clothes under decay", FASHION, mlp(64) | {"regularize": {"weight_decay": 30.0}} | epochs(15)),
    ],
    "optimization_failure": [
        ("clothes, 50 plain layers", FASHION, mlp(*[40] * 50) | rate("ema_momentum", 0.1) | epochs(8)),
        ("houses, 60 plain layers", HOUSES, Z | mlp(*[24] * 60) | rate("sgd", 0.1) | epochs(6)),
    ],
    "learning_rate_too_high": [
        ("clothes momentum 8", FASHION, mlp(64, 32) | rate("ema_momentum", 8.0) | epochs(6)),
        ("houses sgd 3", HOUSES, Z | mlp(32, 16) | rate("sgd", 3.0) | epochs(8)),
        ("vowels lstm adam 0.7", VOWELS, Z | model("lstm", hidden=32) | rate("adam", 0.7) | epochs(6)),
        ("iris rmsprop 1", IRIS, Z | mlp(16, 16) | rate("rmsprop", 1.0) | epochs(20)),
    ],
    "learning_rate_too_low": [
        ("clothes sgd 1e-4", FASHION, mlp(64) | rate("sgd", 1e-4) | epochs(8)),
        ("houses adam 1e-6", HOUSES, Z | mlp(32, 16) | rate("adam", 1e-6) | epochs(8)),
        ("cnn adamw 2e-6", CLOTHES, SMALL_CNN | rate("adamw", 2e-6) | epochs(4)),
    ],
    "vanishing_gradients": [
        (
            "clothes, 10 sigmoids",
            FASHION,
            mlp(*[48] * 10, activation="sigmoid") | rate("ema_momentum", 0.1) | epochs(6),
        ),
        ("adult, 7 sigmoids", ADULT, Z | mlp(*[24] * 7, activation="sigmoid") | rate("sgd", 0.1) | epochs(8)),
    ],
    "exploding_gradients": [
        ("clothes normal 0.6", FASHION, mlp(128, 128, 128, 64, **begun("normal", std=0.6)) | epochs(6)),
        ("houses normal 1.5", HOUSES, Z | mlp(48, 48, 48, 24, **begun("normal", std=1.5)) | epochs(8)),
    ],
    "dead_units": [
        (
            "clothes, negative",
            FASHION,
            mlp(64, 32, **begun("uniform", low=-0.15, high=-0.01)) | rate("sgd", 0.1) | epochs(6),
        ),
        ("houses, negative", HOUSES, Z | mlp(32, 32, 16, **begun("uniform", low=-0.5, high=-0.1)) | epochs(8)),
    ],
    "symmetric_initialization": [
        ("clothes zeros", FASHION, mlp(64, **begun("zeros")) | rate("ema_momentum", 0.1) | epochs(5)),
        ("houses alike", HOUSES, Z | mlp(32, 16, **begun("uniform", low=0.05, high=0.0500001)) | epochs(8)),
        ("vowels lstm zeros", VOWELS, Z | model("lstm", hidden=24, **begun("zeros")) | epochs(5)),
    ],
    "saturated_activations": [
        (
            "clothes sigmoid normal 2",
            FASHION,
            mlp(64, 64, activation="sigmoid", **begun("normal", std=2.0)) | epochs(8),
        ),
        ("adult tanh normal 4", ADULT, Z | mlp(48, 48, activation="tanh", **begun("normal", std=4.0)) | epochs(12)),
    ],
    "unscaled_inputs": [
        ("houses raw", HOUSES, mlp(32, 16) | rate("adam", 1e-3) | epochs(15)),
        ("adult raw", ADULT, mlp(32) | rate("adam", 1e-3) | epochs(12)),
        ("clothes to 255, sgd", base("fashion", 2000, factor=255), mlp(64) | rate("sgd", 0.05) | epochs(8)),
    ],
    "label_noise": [
        ("clothes 35 %", base("fashion", 2000, noise=0.35), mlp(256) | epochs(40)),
        ("adult 50 % drawn", base("adult", 2000, noise=0.5), Z | mlp(128, 64) | epochs(40)),
        ("vowels 30 %", base("vowels", noise=0.3), Z | model("lstm", hidden=48) | rate("adam", 5e-3) | epochs(40)),
    ],
    "class_imbalance": [
        ("rare shirts", base("fashion", 2500, rare={6: 20, 2: 20}), mlp(64) | epochs(12)),
        ("rare rich", base("adult", 2500, rare={1: 90}), Z | mlp(16) | epochs(12)),
    ],
    "distribution_mismatch": [
        ("houses of the north", base("california", 1500, sort=6), Z | mlp(32) | epochs(20)),
        ("dim clothes in the field", base("fashion", 2000, change="dim"), mlp(64) | epochs(10)),
    ],
    "leakage": [
        ("clothes, a fifth seen", base("fashion", 1500, leak=0.2), mlp(64) | epochs(10)),
        ("houses, a fifth seen", base("california", 1200, leak=0.2), Z | mlp(32) | epochs(20)),
        ("iris three times", base("iris", copies=3), Z | mlp(16) | epochs(20)),
    ],
    "validation_too_small": [
        ("wine, 5", WINE, cut(94, 3, 3) | Z | mlp(16) | epochs(25)),
        ("clothes, none", FASHION, cut(8, 0, 2) | mlp(64) | epochs(6)),
        ("houses, 15", HOUSES, cut(98, 1, 1) | Z | mlp(32) | epochs(12)),
    ],
    "stopped_too_early": [
        ("clothes, 4 epochs of sgd", FASHION, mlp(64, 32) | rate("sgd", 0.05) | epochs(4)),
        ("houses, 3 epochs", HOUSES, Z | mlp(32, 16) | epochs(3)),
        ("vowels lstm, 5 epochs", VOWELS, Z | model("lstm", hidden=48) | epochs(5)),
    ],
    "wrong_loss": [
        ("clothes by squares", FASHION, mlp(64, 32) | {"loss": {"kind": "mse"}} | epochs(8)),
        ("houses with outliers", base("california", 1500, outliers=0.04), Z | mlp(32) | epochs(15)),
        ("kinds of wine as numbers", base("wine", whole=True), Z | mlp(16) | epochs(30)),
    ],
    "healthy": [
        ("clothes mlp", base("fashion", 3000), mlp(64, dropout=0.3) | epochs(12) | STOP),
        ("clothes linear", FASHION, model("linear") | epochs(20) | STOP),
        ("clothes cnn", CLOTHES, model("cnn", channels=[8, 16], dropout=0.2) | rate("adam", 3e-3) | epochs(16) | STOP),
        ("adult mlp", base("adult", 2500), Z | mlp(16, dropout=0.2) | epochs(12) | STOP),
        ("adult linear", base("adult", 2500), Z | model("linear") | rate("adam", 3e-3) | epochs(15) | STOP),
        ("houses mlp", base("california", 2500), Z | mlp(32, 16) | rate("adam", 3e-3) | epochs(25) | STOP),
        ("houses linear", HOUSES, Z | model("linear") | rate("adam", 0.01) | epochs(20)),
        ("wine mlp", WINE, Z | mlp(16) | rate("adam", 3e-3) | epochs(30) | STOP),
        ("iris mlp", IRIS, Z | mlp(16) | rate("adam", 0.01) | epochs(40) | STOP),
        ("vowels lstm", VOWELS, Z | model("lstm", hidden=32) | rate("adam", 5e-3) | epochs(20) | STOP),
        ("rows gru", ROWS, model("gru", hidden=32) | rate("adam", 5e-3) | epochs(10) | STOP),
        (
            "houses elu",
            base("california", 2000),
            Z | mlp(32, activation="elu", norm="batch") | rate("adam", 3e-3) | epochs(20) | STOP,
        ),
    ],
}


def _all() -> tuple[Case, ...]:
    halves: tuple[tuple[Half, dict[str, list[Entry]]], ...] = (("first", FIRST), ("second", SECOND))
    return tuple(
        Case(name, code, half, recipe, document)
        for half, planted in halves
        for code, entries in planted.items()
        for name, recipe, document in entries
    )


CASES = _all()
