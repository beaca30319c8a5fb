"""The YAML files in conf/ show every key with its default."""

from pathlib import Path

import pytest
import yaml

from coyo_labeler.stages import STAGES

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_the_yaml_file_of_a_stage_shows_every_key_with_its_default(stage):
    text = (CONF / f"{stage.name}.yaml").read_text()
    shown = yaml.safe_load(text) or {}
    cls = stage.settings_class()
    defaults = cls.model_validate(dict.fromkeys(required(cls), "x")).model_dump(mode="json")
    for key, value in defaults.items():
        if key in required(cls):
            assert f"# {key}:" in text, f"{key} must stand in a comment"
        else:
            assert key in shown, f"{key} is not shown"
            assert shown[key] == value, key
    assert shown.keys() <= defaults.keys()


def required(cls):
    return [name for name, field in cls.model_fields.items() if field.is_required()]


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_every_key_says_what_it_means(stage):
    silent = [
        name
        for name, field in stage.settings_class().model_fields.items()
        if not field.description and name != "spark"
    ]
    assert silent == []
