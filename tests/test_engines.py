"""Which engine a stage runs on, where nobody said."""

import importlib.util

from coyo_labeler import engines
from coyo_labeler.config.label import LabelSettings
from coyo_labeler.errors import InputError
from coyo_labeler.stages import STAGES


def label(engine="auto"):
    settings = LabelSettings(images="images", output="out", engine=engine)
    return STAGES["label"].uses_spark(settings)


def no_java():
    raise InputError("Java is not installed")


def test_label_takes_spark_where_pyspark_and_java_are_installed(monkeypatch):
    monkeypatch.setattr(engines, "require_java", lambda: None)
    assert label()
    with monkeypatch.context() as patched:
        patched.setattr(engines, "require_java", no_java)
        assert not label()
        assert label("spark")  # asked for: the session says what is missing
    with monkeypatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda name: None)
        assert not label()
    assert not label("local")


def test_only_label_merge_select_and_learn_have_a_choice():
    chosen = {name: stage.uses_spark for name, stage in STAGES.items()}
    assert chosen.pop("label") is engines.label_on_spark
    assert chosen.pop("merge") is engines.merge_on_spark
    assert chosen.pop("select") is engines.select_on_spark
    assert chosen.pop("learn") is engines.learn_on_spark
    for name in ("send", "collect", "simulate", "compare", "pretrain_vit"):
        assert chosen.pop(name) is engines.never
    assert set(chosen.values()) == {engines.always}
