"""Descriptions of settings are the source of conf/*.yaml; presets by hand can be read."""

import re
from typing import get_args

import pytest
import yaml

from coyo_labeler.config.base import Settings
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.config.describe import help_text, keys_of
from coyo_labeler.config.read import CONF, read_settings
from coyo_labeler.errors import InputError
from coyo_labeler.stages import STAGES
from coyo_labeler.write_conf import default_files

CLASSES = {stage.name: stage.settings_class() for stage in STAGES.values()}
PRESETS = [path for path in sorted(CONF.glob("*.yaml")) if path not in default_files()]


@pytest.mark.parametrize("path", default_files(), ids=lambda path: path.stem)
def test_the_default_file_of_a_stage_is_what_make_conf_writes(path):
    text = default_files()[path]
    assert path.read_text() == text, "run `make conf`"
    assert max(map(len, text.splitlines())) < 120


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.name)
def test_the_yaml_file_of_a_stage_shows_every_key_with_its_default(stage):
    text = (CONF / f"{stage.name}.yaml").read_text()
    shown = yaml.safe_load(text) or {}
    cls = stage.settings_class()
    given = {name: (cls.model_fields[name].examples or ["x"])[0] for name in required(cls)}
    defaults = cls.model_validate(given).model_dump(mode="json")
    for key, value in defaults.items():
        if key in required(cls):
            assert f"# {key}:" in text, f"{key} must stand in a comment"
        else:
            assert key in shown, f"{key} is not shown"
            assert shown[key] == value, key
    assert shown.keys() <= defaults.keys()


def required(cls):
    return [name for name, field in cls.model_fields.items() if field.is_required()]


def fields_of(cls):
    """All fields of a class and of the groups in it, by dotted name."""
    for name, field in cls.model_fields.items():
        yield name, field
        kinds = [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, Settings):
                yield from ((f"{name}.{inner}", found) for inner, found in fields_of(kind))


@pytest.mark.parametrize("cls", [*CLASSES.values(), DemoSettings], ids=lambda cls: cls.__name__)
def test_every_key_and_every_choice_says_what_it_means(cls):
    for name, field in fields_of(cls):
        assert field.description, name
        words = re.findall(r"\w+", field.description)
        choices = [
            choice
            for part in (field.annotation, *get_args(field.annotation))
            for choice in get_args(part) or [part]
            if isinstance(choice, str)
        ]
        assert [choice for choice in choices if choice not in words] == [], name


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
def test_help_lists_every_key_with_its_default_and_description(cls):
    folded = " ".join(help_text(cls).split())
    keys = keys_of(cls)
    assert {key.name for key in keys if "." not in key.name} == cls.model_fields.keys()
    for key in keys:
        default = "" if key.group else f"[{'required' if key.required else key.value}] "
        assert f"{key.name} {default}{key.description}" in folded


@pytest.mark.parametrize("cls", [*CLASSES.values(), DemoSettings], ids=lambda cls: cls.__name__)
def test_lists_of_keys_name_keys(cls):
    listed = {*cls.inputs, *cls.by_content, *cls.inputs_by_shard, *cls.operational, *cls.sections}
    assert listed <= cls.model_fields.keys()


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_a_preset_is_read(path):
    name = next(name for name in STAGES if path.stem.startswith(f"{name}_"))
    cls = CLASSES[name]
    words = [f"{key}=x" for key in required(cls)]
    settings = read_settings(cls, name, str(path), words)
    shown = yaml.safe_load(path.read_text())
    assert shown.keys() <= cls.model_fields.keys()
    assert settings.model_dump(mode="json")[next(iter(shown))] == next(iter(shown.values()))


def test_a_preset_is_read_by_its_name_unless_there_is_such_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cls, words = CLASSES["pretrain_vit"], ["labels=l", "images=i", "output=o"]
    preset = read_settings(cls, "pretrain_vit", "pretrain_vit_l16", words)
    assert preset.model == "vit_large_patch16_224"
    (tmp_path / "pretrain_vit_l16").write_text("model: vit_tiny_patch16_224\n")
    own = read_settings(cls, "pretrain_vit", "pretrain_vit_l16", words)
    assert own.model == "vit_tiny_patch16_224"
    with pytest.raises(
        InputError, match=r"no such file: vit_l16; .*pretrain_vit_b16, pretrain_vit"
    ):
        read_settings(cls, "pretrain_vit", "vit_l16", words)
