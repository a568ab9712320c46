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
        (IMAGES, {"kind": "torchvision", "name": "mobilenet_v3_small"}),
        (IMAGES, {"kind": "torchvision", "name": "mobilenet_v3_small", "dense": [20, 10]}),
        (IMAGES, {"kind": "torchvision", "name": "mobilenet_v3_small", "include_top": False}),
        (IMAGES, {"kind": "torchvision", "name": "squeezenet1_1", "include_top": False, "dense": [64]}),
        (
            IMAGES,
            {"kind": "torchvision", "name": "resnet18", "include_top": False, "head": "flatten", "image_size": 64},
        ),
        (IMAGES, {"kind": "torchvision", "name": "vit_b_32", "image_size": 96}),
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


@pytest.mark.parametrize(
    ("start", "epochs", "trainable"),
    [
        ({}, 3, 927_008 + 576 * 2 + 2),
        ({"freeze": "body"}, 3, 576 * 2 + 2),
        ({"freeze": "body", "head_hidden": [100]}, 3, 576 * 100 + 100 + 100 * 2 + 2),
        ({"freeze": {"first": 4}}, 3, None),
        ({"freeze": "body", "phases": [{"epochs": 3}]}, 3, 576 * 2 + 2),
        ({"freeze": "body", "phases": [{"epochs": 1}, {"epochs": 2, "unfreeze": "all"}]}, 3, 927_008 + 576 * 2 + 2),
    ],
)
def test_estimates_of_transfer_learning_count_what_is_trained(start, epochs, trainable):
    """Torchvision states MobileNetV3-small's body with 927,008 parameters; here are two classes, and not 1000."""
    model = {"kind": "torchvision", "name": "mobilenet_v3_small", "include_top": False}
    document = {"dataset": "ds_1", "model": model, "start_from": {"file": "w.safetensors", **start}}
    found = estimate(resolve(document, IMAGES), IMAGES)
    assert found["trainable"] == trainable
    hidden = 100 if start.get("head_hidden") else None
    head = 576 * 2 + 2 if hidden is None else 576 * hidden + hidden + hidden * 2 + 2
    assert found["parameters"] == 927_008 + head


def test_a_frozen_body_costs_less_and_classes_cost_what_they_are():
    def cost(classes=2, **start):
        facts = IMAGES.model_copy(update={"classes": {f"c{n}": 10 for n in range(classes)}, "samples": 10 * classes})
        model = {"kind": "torchvision", "name": "vgg16", "include_top": False, "image_size": 64, "dense": [1024]}
        document = {"dataset": "ds_1", "model": model, "start_from": {"file": "w.pt", **start}}
        return estimate(resolve(document, facts), facts)

    frozen, whole = cost(freeze="body"), cost()
    whole_top = {"dataset": "ds_1", "model": {"kind": "torchvision", "name": "resnet18"}}
    freed = resolve({**whole_top, "start_from": {"file": "w.pt", "freeze": "body"}}, IMAGES)
    # Adam's two moments and the gradient of 11.2 million parameters are never made
    saved = estimate(resolve(whole_top, IMAGES), IMAGES)["memory_bytes"] - estimate(freed, IMAGES)["memory_bytes"]
    assert saved == 3 * 4 * 11_176_512
    assert frozen["memory_bytes"] > 4 * 138_357_544, "all of VGG16 is built before its top is taken off"
    assert frozen["seconds"] < whole["seconds"] / 20, "the body runs once, and not 20 epochs"
    augmented = cost(freeze="body", cache_features=False)
    assert frozen["seconds"] < augmented["seconds"] < whole["seconds"]
    assert cost(1000)["parameters"] - cost(10)["parameters"] == (1000 - 10) * 1025
