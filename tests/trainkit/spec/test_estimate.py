"""Parameter estimates are exact for our own models: compared with the built torch modules."""

import pytest

from trainkit.nn.build import build_model
from trainkit.spec import DatasetFacts, resolve
from trainkit.spec.estimate import estimate

IMAGES = DatasetFacts(
    kind="images",
    samples=500,
    input_shape=(3, 16, 16),
    input_dtype="uint8",
    classes={"a": 250, "b": 250},
    target_type="class",
)
SEQUENCES = DatasetFacts(
    kind="sequences",
    samples=300,
    input_shape=(29, 12),
    lengths=(7, 29),
    classes={"1": 150, "2": 150},
    target_type="class",
)


@pytest.mark.parametrize(
    ("facts", "model"),
    [
        (IMAGES, {"kind": "linear"}),
        (IMAGES, {"kind": "mlp", "hidden": [50, 20]}),
        (IMAGES, {"kind": "mlp", "hidden": [50, 20], "norm": "batch"}),
        (IMAGES, {"kind": "cnn", "channels": [8, 16], "dense": [32]}),
        (IMAGES, {"kind": "cnn", "channels": [8, 16], "norm": "none", "head": "flatten", "convs_per_block": 2}),
        (IMAGES, {"kind": "residual_cnn", "channels": [8, 16, 16], "blocks_per_stage": 2}),
        (SEQUENCES, {"kind": "lstm", "hidden": 20, "layers": 2}),
        (SEQUENCES, {"kind": "gru", "hidden": 20, "bidirectional": True}),
    ],
)
def test_parameters_equal_the_built_model(facts, model):
    resolved = resolve({"dataset": "ds_1", "model": model}, facts)
    module = build_model(resolved.spec.model, resolved.sample.shape, resolved.outputs, seed=0)
    assert estimate(resolved, facts)["parameters"] == sum(p.numel() for p in module.parameters())


def test_memory_grows_with_the_batch():
    def memory(batch):
        document = {"dataset": "ds_1", "model": {"kind": "cnn"}, "train": {"batch_size": batch}}
        return estimate(resolve(document, IMAGES), IMAGES)["memory_bytes"]

    assert memory(256) > memory(32)
