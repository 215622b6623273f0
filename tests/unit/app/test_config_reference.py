import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from migscaler.app.config.reference import (
    all_sections,
    default_text,
    json_schema,
    models_of,
    reference_page,
    schema_text,
)

ROOT = Path(__file__).parents[3]


def test_shipped_schema_is_that_of_the_model() -> None:
    assert (ROOT / "config" / "migscaler.schema.json").read_text("utf-8") == schema_text()


def test_reference_page_is_that_of_the_model() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")

    assert page == reference_page(page)


def test_schema_is_valid_and_accepts_the_shipped_files() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.check_schema(json_schema())

    for name in ("starter.yaml", "promql.yaml"):
        shipped = yaml.safe_load((ROOT / "config" / name).read_text("utf-8"))
        assert [e.message for e in validator.iter_errors(shipped)] == []


@pytest.mark.parametrize(
    "value",
    [
        {"mode": "off"},
        {"tick": "15"},
        {"frobnicate": 1},
        {"rules": [{"name": "a"}]},
        {"sources": {"q": {"type": "prometheus", "query": "up"}}},
        {"web": {"listen": 9836}},
    ],
)
def test_schema_refuses_what_the_model_refuses(value: object) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())

    assert list(validator.iter_errors(value))


def test_schema_shows_defaults_as_they_are_written() -> None:
    schema = json.loads(schema_text())

    assert schema["properties"]["tick"]["default"] == "15s"
    assert schema["$defs"]["IdleSection"]["properties"]["memory_margin"]["default"] == "64MiB"
    assert schema["$defs"]["PaceSection"]["properties"]["lower_after"]["default"] == "10m"


def test_every_setting_says_its_default_and_a_reason() -> None:
    wrong = []
    for section in all_sections():
        assert section.__doc__
        for name, field in section.model_fields.items():
            words = " ".join((field.description or "").split())
            if models_of(field.annotation) == [field.annotation]:
                expected = "Default"  # a section: its keys say theirs
            elif field.is_required():
                expected = "Required."
            else:
                expected = f"Default {default_text(name, field)}"
            if expected not in words or not words.endswith("."):
                wrong.append(f"{section.__name__}.{name}: {expected}")

    assert wrong == []
