"""Documents and tables that a stage left behind, cut short, emptied, or with a folder in place."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler import storage
from coyo_labeler.config.base import StageSettings
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.parquet_splits import plan_splits, read_split
from coyo_labeler.manifest import Counts, Outcome, Run, read_manifest
from coyo_labeler.merge.state import StateFolder
from coyo_labeler.receipts import Receipt, Receipts
from coyo_labeler.storage_errors import DamagedFileError
from tests.memory import peak_growth

DONE = Outcome(Counts(5, 5))
DAMAGES = [
    b"",
    b"{",
    b'{"stage": "ing',
    b"\xff\xfe\x00",
    b"[]",
    b"{}",
    b"null",
    b"[" * 100_000,
    bytes(4096),
    b'{"stage": 1, "fingerprint": [], "shaping": [], "inputs": {"source": 1}, "rows": "x"}',
    b'{"stage": "ingest", "fingerprint": "f", "shaping": null, "inputs": {}, "shard": "x"}',
    b'{"seconds": 1' + b"0" * 5000 + b"}",
    b'{"stage": "a", "rows": {"in": 1, "out": 0, "rejected": {"\\uD800": 1}}, "seconds": 1}',
]


class Example(StageSettings):
    inputs: ClassVar[tuple[str, ...]] = ("source",)

    source: str


@pytest.fixture
def settings(tmp_path: Path) -> Example:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "a.parquet").write_bytes(b"rows")
    return Example(output=str(tmp_path / "out"), source=str(tmp_path / "source"))


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_manifest_of_ones_own_is_written_again(settings, content):
    Run.begin("ingest", settings).finish(DONE)
    Path(settings.output, "_manifest.json").write_bytes(content)
    run = Run.begin("ingest", settings)
    assert run.resumed
    assert run.done is None
    run.finish(DONE)
    assert Run.begin("ingest", settings).done is not None


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_claim_is_named_and_replaced_on_request(settings, content):
    Run.begin("ingest", settings)
    Path(settings.output, "_run.json").write_bytes(content)
    assert Run.begin("ingest", settings).done is None  # it held nothing else
    Path(settings.output, "result").write_text("")
    Path(settings.output, "_run.json").write_bytes(content)
    with pytest.raises(InputError, match=r"_run\.json .*overwrite=true"):
        Run.begin("ingest", settings)
    assert Path(settings.output, "result").exists()
    replaced = settings.model_copy(update={"overwrite": True})
    Run.begin("ingest", replaced).finish(DONE)
    assert not Path(settings.output, "result").exists()


@pytest.mark.parametrize("name", ["_manifest.json", "_run.json"])
def test_a_damaged_input_is_named_with_its_remedy(settings, name):
    Path(settings.source, name).write_text('{"stage": "ing')
    with pytest.raises(InputError, match=rf"ingest: source: .*{name} .*run the stage") as error:
        Run.begin("ingest", settings)
    assert "\n" not in str(error.value)
    Path(settings.source, name).unlink()
    Path(settings.source, name).mkdir()
    with pytest.raises(InputError, match=rf"{name} is a folder, not a file"):
        Run.begin("ingest", settings)


@pytest.mark.parametrize("content", DAMAGES)
def test_a_damaged_receipt_counts_as_none(tmp_path, content, caplog):
    receipts = Receipts(str(tmp_path), "f")
    for shard in (0, 1):
        receipts.write(Receipt(shard, "f", Counts(1, 1), 0.5))
    (tmp_path / "_receipts" / "00001.json").write_bytes(content)
    assert list(receipts.read()) == [0]
    other_run = content.startswith(b"{") and content.endswith(b"}") and b"seconds" not in content
    assert other_run or "00001.json" in caplog.text


def test_a_manifest_that_lacks_something_is_named(tmp_path):
    (tmp_path / "_manifest.json").write_text('{"stage": "ingest", "rows": {"in": 1}}')
    with pytest.raises(DamagedFileError, match=r"_manifest\.json is cut short or damaged"):
        read_manifest(str(tmp_path))


def write_table(path: Path) -> bytes:
    values = np.random.default_rng(0).integers(0, 1 << 62, 5000)
    storage.write_parquet(str(path), pa.table({"id": values}))
    return path.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-20] + b"\xff" * 12 + data[-8:],
        lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1",
        lambda data: b"PAR1PAR1",
        lambda data: b"",
        lambda data: data[:-60] + b"\x15" * 40 + data[-20:],
    ],
)
def test_a_damaged_footer_is_one_line(tmp_path, damage):
    path = tmp_path / "a.parquet"
    path.write_bytes(damage(write_table(path)))
    with pytest.raises(InputError, match=r"k: .*a\.parquet is not a readable Parquet") as error:
        plan_splits("k", str(tmp_path), pa.schema([("id", pa.int64())]), 1000)
    assert "\n" not in str(error.value)


def test_a_damaged_page_is_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    data = bytearray(write_table(path))
    split = plan_splits("k", str(tmp_path), pa.schema([("id", pa.int64())]), 1000)[0]
    data[4:4000] = b"\xff" * 3996
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"k: .*a\.parquet is not a readable Parquet"):
        list(read_split(split))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"ARROW1", b"\x93NUMPY"])
def test_a_damaged_state_of_merge_makes_the_next_run_start_anew(tmp_path, content):
    state = StateFolder(str(tmp_path), "run")
    state.write_prepared({"partitions": 1})
    state.write_votes(pa.table({"image": [1]}), 0)
    state.write_array("x.npy", np.arange(3), 0)
    for name, read in (
        ("votes-00000.arrow", lambda: state.read_votes(0)),
        ("x-00000.npy", lambda: state.read_array("x.npy", 0)),
    ):
        state.write_prepared({"partitions": 1})
        (tmp_path / "_state" / "run" / name).write_bytes(content)
        with pytest.raises(WorkError, match=f"{name} is missing, cut short or damaged"):
            read()
        assert state.read_prepared() is None
    assert (tmp_path / "_state" / "run").is_dir()
    (tmp_path / "_state" / "run" / "iteration.npz").write_bytes(content)
    assert state.load_checkpoint() is None
    (tmp_path / "_state" / "prepared.json").write_bytes(content)
    assert state.read_prepared() is None
    assert StateFolder.open(str(tmp_path), "other", "token").run == "other-token"


@pytest.mark.parametrize("name", ["_manifest.json", "_run.json"])
def test_a_document_of_a_hundred_megabytes_is_not_read(settings, name):
    """Parsed, it would take gigabytes."""
    path = Path(settings.source, name)
    path.write_bytes(b'{"stage": "ingest", "x": [' + b"0," * 50_000_000 + b"0]}")
    with peak_growth() as grown, pytest.raises(InputError, match=f"{name} .*more than 33,554,432"):
        Run.begin("ingest", settings)
    assert grown[0] < 200_000_000


def test_texts_of_a_strangers_claim_are_one_line_in_messages(settings):
    claim = {"stage": "in\ngest\x1b[2J" * 9999, "fingerprint": "f", "shaping": {}, "inputs": {}}
    storage.write_json(str(Path(settings.source, "_run.json")), claim)
    with pytest.raises(InputError, match=r"source: in\\ngest") as error:
        Run.begin("ingest", settings)
    assert len(str(error.value)) < 5000
    storage.write_json(str(Path(settings.output, "_run.json")), {**claim, "shaping": {"a\nb": "c"}})
    storage.write_bytes(str(Path(settings.output, "result")), b"")
    Path(settings.source, "_run.json").unlink()
    with pytest.raises(InputError, match="holds the results of another run") as error:
        Run.begin("ingest", settings)
    assert "\n" not in str(error.value)
