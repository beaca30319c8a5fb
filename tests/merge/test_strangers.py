"""An unfinished merge whose documents hold other values than it wrote, and an earlier one's."""

import json
import random
import shutil
from pathlib import Path

import pytest

from coyo_labeler.em import model_choice
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.merge import stage
from coyo_labeler.merge.earlier import read_earlier
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.merge.tables import assert_same_tables
from tests.merge.test_invariance import GIVEN, write
from tests.merge.test_stage import labels_file

WRONG = ["three", None, [], {}, -1, 2.5, True, "\0" * 9]


@pytest.fixture(scope="module", autouse=True)
def few_held_out_votes():
    """Models are compared on 60 votes, not on all: most of the time of these merges goes there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(model_choice, "_HELD_OUT", 60)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers")
    given = {**GIVEN, **write(folder / "in", 0, 2), "label_space": labels_file(folder)}
    return [f"{key}={value}" for key, value in (given | {"engine": "local"}).items()]


def merge(inputs, output: Path) -> str | None:
    """The error of a merge, which is one line."""
    words = [*inputs, f"output={output}"]
    try:
        run_stage(STAGES["merge"], read_stage_settings(STAGES["merge"], words))
    except (InputError, WorkError) as error:
        assert "\n" not in str(error)
        return str(error)
    return None


class KilledError(BaseException):
    """The process is gone."""


def kill_in(name, inputs, output, monkeypatch):
    def die(*_, **__):
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(stage, name, die)
        with pytest.raises(KilledError):
            merge(inputs, output)


def places(document, prefix=()):
    """The way to each value of a document, of each list to its first."""
    items = document.items() if isinstance(document, dict) else [(0, document[0])]
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list) and value:
            yield from places(value, (*prefix, key))


def replaced(document, place, value):
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "merged"
    assert merge(inputs, output) is None
    return output


@pytest.mark.parametrize("killed_in", ["iterate", "write_reports"])
def test_documents_of_the_state_with_other_values_cost_a_new_start_at_most(
    inputs, whole, tmp_path, monkeypatch, killed_in
):
    output = tmp_path / "merged"
    kill_in(killed_in, inputs, output, monkeypatch)
    prepared = json.loads((output / "_state/prepared.json").read_text())
    names = sorted(path.name for path in (output / "_state").rglob("written-*.json"))
    assert (killed_in == "write_reports") == bool(names)
    for number, place in enumerate([*places(prepared)][::7] + names[:2]):
        wrong = WRONG[number % len(WRONG)]
        if isinstance(place, str):
            path = next((output / "_state").rglob(place))
            document = json.loads(path.read_text())
            path.write_text(json.dumps({**document, "rows": wrong}))
        else:
            path = output / "_state/prepared.json"
            path.write_text(json.dumps(replaced(prepared, place, wrong)))
        errors = [merge(inputs, output) for _ in range(2)]
        assert errors[1] is None, (place, wrong, errors)
        assert_same_tables(output, whole)
        (output / "_manifest.json").unlink()
        kill_in(killed_in, inputs, output, monkeypatch)
        prepared = json.loads((output / "_state/prepared.json").read_text())


def test_a_manifest_of_an_earlier_merge_with_other_values_is_one_line(whole, tmp_path):
    manifest = json.loads((whole / "_manifest.json").read_text())
    for place in places(manifest):
        for wrong in WRONG:
            (tmp_path / "_manifest.json").write_text(json.dumps(replaced(manifest, place, wrong)))
            try:
                earlier = read_earlier(str(tmp_path), "auto")
            except InputError as error:
                assert "\n" not in str(error)
            else:
                assert earlier.calibration.a + earlier.true_share is not None


def test_no_flipped_bit_of_the_state_gives_other_tables(inputs, whole, tmp_path, monkeypatch):
    """A run that was killed goes on from its state, or starts anew where that is damaged."""
    output, dice = tmp_path / "merged", random.Random(3)
    kill_in("write_reports", inputs, output, monkeypatch)
    state = {path: path.read_bytes() for path in sorted(output.rglob("*")) if path.is_file()}
    kinds = {
        path.name.partition("-")[0] + path.suffix: path for path in state if "_state" in str(path)
    }
    assert {".arrow", ".npy", ".npz", ".parquet", ".json"} <= {
        path.suffix for path in kinds.values()
    }
    for path in [*kinds.values()] * 2:
        shutil.rmtree(output)
        for other, data in state.items():
            other.parent.mkdir(parents=True, exist_ok=True)
            other.write_bytes(data)
        damaged = bytearray(state[path])
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        errors = [merge(inputs, output) for _ in range(2)]
        assert errors[1] is None, (path.name, errors)
        assert_same_tables(output, whole)
