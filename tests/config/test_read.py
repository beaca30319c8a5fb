from typing import ClassVar, Literal

import pytest
from pydantic import Field

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.config.read import read_settings
from coyo_labeler.errors import InputError


class Inner(Settings):
    depth: int = Field(1, ge=0, le=4)


class Example(StageSettings):
    inputs: ClassVar[tuple[str, ...]] = ("beliefs",)

    beliefs: str | None = None
    tolerance: float = Field(1e-6, gt=0)
    truth: Literal["single", "multi"] = "single"
    inner: Inner = Field(default_factory=Inner)


def read(*overrides: str, config: str | None = None) -> Example:
    return read_settings(Example, "merge", config, ["output=out", *overrides])


def refusal(*overrides: str, config: str | None = None) -> str:
    with pytest.raises(InputError) as error:
        read(*overrides, config=config)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_defaults_stand_where_nothing_is_given():
    assert read() == Example(output="out")


def test_words_overrule_the_file_and_the_file_the_defaults(tmp_path):
    file = tmp_path / "merge.yaml"
    file.write_text("tolerance: 1e-3\ntruth: multi\ninner: {depth: 3}\n")
    settings = read("truth=single", config=str(file))
    assert (settings.tolerance, settings.truth, settings.inner.depth) == (1e-3, "single", 3)


def test_dotted_words_reach_nested_keys_and_keep_their_neighbours():
    settings = read("inner.depth=2", "spark.conf.a=1", "spark.master=local[1]")
    assert settings.inner.depth == 2
    assert settings.spark.conf == {"a": "1"}
    assert settings.spark.master == "local[1]"


def test_properties_of_spark_are_named_with_their_dots(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("spark: {conf: {spark.task.cpus: 2}}")
    settings = read("spark.conf.spark.ui.enabled=true", config=str(file))
    assert settings.spark.conf == {"spark.task.cpus": "2", "spark.ui.enabled": "true"}


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        ("belief=x", ("belief", "did you mean beliefs?")),
        ("zzz=1", ("zzz", "the keys are", "tolerance")),
        ("inner.dept=1", ("inner.dept", "did you mean depth?")),
        ("tolerance=abc", ("tolerance", "'abc'", "valid number")),
        ("tolerance=0", ("tolerance", "greater than 0")),
        ("truth=both", ("truth", "'both'", "'single' or 'multi'")),
        ("inner.depth=9", ("inner.depth", "less than or equal to 4")),
        ("tolerance", ("'tolerance' is not of the form key=value",)),
        ("truth.x=1", ("truth",)),
    ],
)
def test_a_wrong_word_is_named_with_its_remedy(word, parts):
    message = refusal(word)
    assert message.startswith("merge: ")
    for part in parts:
        assert part in message


def test_a_required_key_left_out_is_named():
    with pytest.raises(InputError, match=r"merge: output: missing; give output=…"):
        read_settings(Example, "merge")


def test_a_sentence_with_a_colon_is_text():
    assert read("beliefs=a: b").beliefs == "a: b"


def test_a_broken_or_missing_file_is_named(tmp_path):
    assert "no such file" in refusal(config=str(tmp_path / "none.yaml"))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1\n")
    assert "not valid YAML" in refusal(config=str(broken))
    listed = tmp_path / "list.yaml"
    listed.write_text("- 1\n")
    assert "key: value" in refusal(config=str(listed))
