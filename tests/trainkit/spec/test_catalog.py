"""The catalogue lists what the unions accept, so it cannot drift from them."""

import subprocess
import sys

import torchvision

from trainkit.spec.catalog import SECTIONS, catalog, kinds
from trainkit.spec.torchvision_names import TORCHVISION_CLASSIFIERS


def test_every_kind_has_a_description_and_a_schema():
    listed = catalog()
    for section in SECTIONS:
        for entry in listed[section]:
            assert entry["description"].endswith("."), entry["kind"]
            assert entry["schema"]["properties"]["kind"]["const"] == entry["kind"]


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
