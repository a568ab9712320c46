"""The catalogue lists what the unions accept, so it cannot drift from them."""

import subprocess
import sys
from typing import get_args

import torchvision

from trainkit.spec import job, models, split, training
from trainkit.spec.catalog import SECTIONS, catalog, kinds
from trainkit.spec.metrics import DIRECTIONS
from trainkit.spec.torchvision_architectures import TORCHVISION_CLASSIFIERS


def test_every_kind_has_a_description_and_a_schema():
    listed = catalog()
    for section in SECTIONS:
        for entry in listed[section]:
            assert entry["description"].endswith("."), entry["kind"]
            assert entry["schema"]["properties"]["kind"]["const"] == entry["kind"]


def test_every_choice_of_the_spec_is_listed_with_a_description_and_a_schema():
    listed = catalog()
    for section, entries in listed.items():
        if section == "failure":
            continue
        for entry in entries:
            assert entry["description"].endswith("."), (section, entry["kind"])
            assert entry["schema"], (section, entry["kind"])
    for section, words in (
        ("task", job.Task),
        ("balance", split.Balance),
        ("activation", models.Activation),
        ("norm", models.Norm),
        ("head", models.Head),
        ("pool", models.Cnn.model_fields["pool"].annotation),
        ("sequence_pooling", models.Recurrent.model_fields["pooling"].annotation),
        ("sanity_check", training.SanityCheck),
        ("target_scaling", job.JobSpec.model_fields["target_scaling"].annotation),
    ):
        assert [entry["kind"] for entry in listed[section]] == list(get_args(words)), section
    assert [entry["kind"] for entry in listed["metric"]] == list(DIRECTIONS)


def test_advice_on_transfer_is_made_of_fields_that_start_from_has():
    for entry in catalog()["transfer_advice"]:
        if entry["default"] is not None:
            training.StartFrom.model_validate({"model": "mdl_1", **entry["default"]})


def test_every_section_of_a_job_spec_is_in_the_catalogue():
    # the service writes `investigation` itself
    assert set(job.JobSpec.model_fields) - {"name", "labels", "group", "investigation"} <= set(catalog())


def test_defaults_validate_against_their_own_model():
    listed = catalog()
    for section, union in SECTIONS.items():
        for entry, model in zip(listed[section], kinds(union), strict=True):
            if entry["default"] is not None:
                model.model_validate(entry["default"])


def test_every_field_is_documented():
    for union in SECTIONS.values():
        for model in kinds(union):
            for name, field in model.model_fields.items():
                assert name == "kind" or field.description, f"{model.__name__}.{name}"


def test_torchvision_names_are_torchvisions():
    assert sorted(TORCHVISION_CLASSIFIERS) == sorted(torchvision.models.list_models(module=torchvision.models))


def test_the_spec_does_not_import_torch():
    code = "import sys, trainkit.spec, trainkit.spec.catalog, trainkit.spec.estimate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
