from typing import ClassVar, Literal

import pytest
from pydantic import Field

from coyo_labeler.config.base import Settings, StageSettings
from coyo_labeler.config.ingest import IngestSettings
from coyo_labeler.config.merge import MergeSettings
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
    tags: tuple[str, ...] = ()
    names: dict[str, str] = Field(default_factory=dict)
    ways: list[str] = Field(["a"], min_length=1)


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


@pytest.mark.parametrize(
    "text",
    ["2024_01_15", "007", "12.50", "1:30", "2024-01-15", "no", "0x10", "{a}", "[x", "a: b", "a#b"],
)
def test_text_is_what_was_typed(text):
    settings = read(f"output={text}", f"beliefs={text}", f"spark.conf.spark.app.id={text}")
    assert (settings.output, settings.beliefs) == (text, text)
    assert settings.spark.conf == {"spark.app.id": text}


def test_items_of_a_list_of_texts_are_what_was_typed():
    settings = read("tags=[007, 2024_01_15, no, 'a, b']", "names={x: 1_0}")
    assert settings.tags == ("007", "2024_01_15", "no", "a, b")
    assert settings.names == {"x": "1_0"}


def test_nothing_is_null_where_a_key_may_be_null_and_named_where_not():
    for nothing in ("null", "~", ""):
        assert read(f"beliefs={nothing}").beliefs is None
    assert read("output=null").output == "null"
    assert refusal("output=") == "merge: output: nothing is given; give output=…"


def test_numbers_stay_numbers_and_choices_stay_words():
    assert read("tolerance=1e-3", "truth=multi", "inner.depth=0x2").tolerance == 1e-3
    assert "'2' is wrong" in refusal("truth=2")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2024_01_15", "a number"),
        ("007", "a number"),
        ("12.50", "a number"),
        ("1:30", "a number"),
        ("2024-01-15", "a date"),
        ("2024-01-15 10:00:00", "a time"),
        ("no", "a truth value"),
    ],
)
def test_a_file_that_needs_quotes_is_told_so(tmp_path, text, kind):
    file = tmp_path / "own.yaml"
    file.write_text(f"beliefs: {text}\n")
    message = refusal(config=str(file))
    assert message.startswith("merge: beliefs: ")
    assert f"is {kind} in YAML, and text is wanted; write it in quotes: beliefs: '…'" in message
    file.write_text(f"tags: [a, {text}]\n")
    assert "write it in quotes" in refusal(config=str(file))
    file.write_text(f"beliefs: '{text}'\n")
    assert read(config=str(file)).beliefs == text


def test_numbers_among_the_properties_of_spark_are_as_written(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("spark: {conf: {a: 007, b: 1.50, c.d: {e: 1:30}, f: yes, g: '1', h: 2_0}}")
    conf = {"a": "007", "b": "1.50", "c.d.e": "1:30", "f": "true", "g": "1", "h": "2_0"}
    assert read(config=str(file)).spark.conf == conf


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ("title: Bär".encode("latin-1"), ("not UTF-8", "0xe4", "save it as UTF-8")),
        ("a: b".encode("utf-16"), ("not UTF-8",)),
        (b"\x00\x01", ("not valid YAML",)),
        (b"a: " + b"[" * 5000, ("nested too deeply",)),
        (b"a: " + b"[" * 60 + b"]" * 60, ("nested more than 40 deep",)),
        (b"beliefs: &a [*a]", ("refers to itself",)),
        (BOMB.encode(), ("unfolds to more than 10,000 values",)),
        (b"a: &a {x: 1}\nb: {<<: [*a, *a]}\nbeliefs: 2024-13-45", ("quote it",)),
        (b"beliefs: !!float x", ("quote it",)),
        (b"x" * (2**20 + 1), ("too large",)),
        (b"tolerance: 1" + b":1" * 400_000, ("a number of 800,001 characters",)),
        (b"tolerance: 0x" + b"f" * 900_000, ("a number of 900,002 characters",)),
        (b"tolerance: 1." + b"1" * 900_000, ("a number of 900,002 characters",)),
        (b"tolerance: .inf", ("tolerance", "finite")),
        (b"tolerance: .nan", ("tolerance", "finite")),
        (b'votes: "a\\0b"', ("votes: the text holds a NUL",)),
        (b'votes: "\\ud800"', ("votes: the text holds a NUL or half a surrogate",)),
        (b'spark: {conf: {"a\\0": b}}', ("spark: the text holds a NUL",)),
        (b"1: 2", ("1: a key must be text",)),
        (b"beliefs: a\nbeliefs: b", ("'beliefs' is there twice; remove one",)),
        (b"spark: {conf: {a: 1, a: 2}}", ("'a' is there twice; remove one",)),
        (b"\n".join(b"k%d: 1" % i for i in range(50)), ("and 40 more",)),
        (b"beliefs: [" + b"y," * 9000 + b"]", ("beliefs", "wrong")),
    ],
)
def test_a_hostile_file_is_one_short_line(tmp_path, content, parts):
    file = tmp_path / "own.yaml"
    file.write_bytes(content)
    message = refusal(config=str(file))
    assert len(message) < 3000
    for part in parts:
        assert part in message


def test_a_folder_for_a_file_is_named(tmp_path):
    assert "Is a directory" in refusal(config=str(tmp_path))
    (tmp_path / "file").write_text("")
    assert "no such file" in refusal(config=str(tmp_path / "file" / "own.yaml"))


def test_a_word_nested_without_end_is_refused():
    assert "nested" in refusal("inner=" + "{a: " * 5000)


def test_how_a_list_is_given_is_said():
    for key in ("tags", "ways"):
        assert f"{key}: 'a' is wrong; it must be a list; give {key}='[…]'" in refusal(f"{key}=a")
    assert "ways: nothing is in the list; give some" in refusal("ways=[]")


def test_the_file_may_begin_with_a_byte_order_mark(tmp_path):
    file = tmp_path / "own.yaml"
    file.write_bytes(b"\xef\xbb\xbfbeliefs: b\n")
    assert read(config=str(file)).beliefs == "b"


@pytest.mark.parametrize(
    "numbers", ["nan", "nan,1", "1,nan", "inf,0", "1,-inf", "0,1", "1,2,3", ","]
)
def test_numbers_of_a_calibration_are_finite(numbers):
    words = ["votes=v", "output=o", f"calibration={numbers}"]
    with pytest.raises(InputError, match=f"calibration: '{numbers}' is wrong; it must be votes"):
        read_settings(MergeSettings, "merge", None, words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("thresholds={a: {maxx: 1}}", "thresholds.a.maxx: no such key; did you mean max?"),
        ("thresholds.a.zzz=1", "thresholds.a.zzz: no such key; the keys are min, max"),
        ("thresholds={a: {max:1}}", "thresholds.a.max:1: no such key; in YAML a space follows"),
    ],
)
def test_keys_below_a_mapping_of_settings_are_named(word, message):
    with pytest.raises(InputError) as error:
        read_settings(IngestSettings, "ingest", None, ["source=s", "output=o", word])
    assert message in str(error.value)
