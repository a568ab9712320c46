"""What an investigation found, as its process writes it, for tests of who reads it."""

from __future__ import annotations

from typing import Any

EFFECT: dict[str, Any] = {"metric": "val_loss", "gain": 0.4, "low": 0.3, "high": 0.5, "p_value": 1e-6, "samples": 100}


def findings_of(
    document: dict[str, Any], code: str = "unscaled_inputs", variant: str = "standardised"
) -> dict[str, Any]:
    """A measured verdict with its recommendation, a change that hurt, and a refuted verdict of the record."""
    patch: dict[str, Any] = {"preprocess": [{"kind": "z_score"}]}
    evidence = {**EFFECT, "variant": variant, "runs": ["base", variant], "series": ["train_loss", "val_loss"]}
    words = "With scaled inputs the validation loss is 0.4 lower (95 % interval 0.3 to 0.5)."
    measured = {**EFFECT, "before": 0.9, "after": 0.5, "variant": variant, "artifact": "/somewhere/on/the/worker"}
    hurt = {**measured, "gain": -0.2, "low": -0.3, "high": -0.1, "variant": "rate_tenfold"}
    worse: dict[str, Any] = {"optimizer": {"kind": "adam", "lr": 0.01}}
    return {
        "verdicts": [
            {"code": code, "confidence": 0.97, "since_epoch": None, "message": words, "evidence": evidence},
        ],
        "recommendations": [
            {"patch": patch, "spec": {**document, **patch}, "why": words, "code": code, "measured": measured}
        ],
        "harmful": [{"patch": worse, "spec": {**document, **worse}, "why": "Worse.", "code": None, "measured": hurt}],
        "tried": [
            {
                "change": variant,
                "causes": [code],
                "variant": variant,
                "state": "succeeded",
                "outcome": "repaired",
                **EFFECT,
            }
        ],
        "suspects": [{"code": "label_noise", "suspicion": 0.2, "why": "it may be"}],
        "refuted": ["overfitting"],
        "message": f"2 runs were trained. {words}",
    }
