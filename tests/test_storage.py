import hashlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler import storage
from coyo_labeler.errors import InputError, WorkError
from coyo_labeler.formats.columns import check_columns


@pytest.fixture(params=["file", "memory"])
def folder(request, tmp_path):
    if request.param == "file":
        return str(tmp_path)
    return f"memory://{tmp_path}"


def names(url):
    fs, path = storage.resolve(url)
    return sorted(name.rpartition("/")[2] for name in fs.find(path))


def test_a_file_appears_whole(folder):
    storage.write_bytes(storage.join(folder, "a", "b.bin"), b"whole")
    fs, path = storage.resolve(storage.join(folder, "a", "b.bin"))
    assert fs.cat_file(path) == b"whole"
    assert names(folder) == ["b.bin"]


def test_a_writer_that_fails_leaves_the_earlier_file_and_nothing_else(folder):
    url = storage.join(folder, "a.bin")
    storage.write_bytes(url, b"earlier")
    with pytest.raises(RuntimeError), storage.open_atomic(url) as file:
        file.write(b"half of the ")
        raise RuntimeError("the machine is on fire")
    fs, path = storage.resolve(url)
    assert fs.cat_file(path) == b"earlier"
    assert names(folder) == ["a.bin"]


def test_what_a_killed_writer_left_is_no_data_and_can_be_removed(tmp_path):
    script = (
        "import sys; from coyo_labeler import storage\n"
        "with storage.open_atomic(sys.argv[1]) as file:\n"
        "    file.write(b'half'); file.flush(); print('writing', flush=True); sys.stdin.read()\n"
    )
    url = str(tmp_path / "a.parquet")
    with subprocess.Popen(
        [sys.executable, "-c", script, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout.readline() == "writing\n"
        writer.kill()
    assert not Path(url).exists()
    assert len(list(tmp_path.iterdir())) == 1
    assert storage.files_of(str(tmp_path)) == {}
    assert storage.remove_temporaries(str(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_json_comes_back_and_a_missing_file_is_none(folder):
    url = storage.join(folder, "a.json")
    storage.write_json(url, {"b": [1, "ü"], "a": None})
    assert storage.read_json(url) == {"b": [1, "ü"], "a": None}
    assert storage.read_json(storage.join(folder, "none.json")) is None


def test_parquet_carries_its_metadata(tmp_path):
    url = str(tmp_path / "a.parquet")
    storage.write_parquet(url, pa.table({"x": [1, 2]}), {"teacher": "b0"})
    schema = pq.read_schema(url)
    assert schema.metadata[b"teacher"] == b"b0"
    assert pq.ParquetFile(url).metadata.row_group(0).column(0).compression == "ZSTD"


def test_files_of_a_folder_a_file_and_a_glob(folder):
    for name in ("b.parquet", "a.parquet", "_hidden.parquet", ".tmp.parquet", "c.tar"):
        storage.write_bytes(storage.join(folder, name), b"x")
    storage.write_bytes(storage.join(folder, "failures", "d.parquet"), b"x")
    for url in (folder, storage.join(folder, "*.parquet")):
        assert [name.rpartition("/")[2] for name in storage.files_of(url)] == [
            "a.parquet",
            "b.parquet",
        ]
    one = storage.join(folder, "a.parquet")
    assert [name.rpartition("/")[2] for name in storage.files_of(one)] == ["a.parquet"]


def test_a_table_is_found_where_the_stage_before_put_it(folder):
    storage.write_bytes(storage.join(folder, "catalog", "a.parquet"), b"x")
    assert storage.locate(folder, "catalog") == storage.join(folder, "catalog")
    assert storage.locate(storage.join(folder, "catalog"), "catalog").endswith("/catalog")


def test_an_unknown_protocol_is_a_wrong_input():
    with pytest.raises(InputError, match="nowhere"):
        storage.resolve("nowhere://a/b")


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("Unable to load libhdfs\ndlopen(./libhdfs.so) failed", InputError, "ARROW_LIBHDFS_DIR"),
        ("Unable to load libjvm\ndlopen(./libjvm.so) failed", InputError, "JAVA_HOME"),
        ("HDFS connection failed\nat a stack", WorkError, "hdfs://nn/a cannot be reached"),
    ],
)
def test_hdfs_that_cannot_be_opened_is_one_line(monkeypatch, said, error, message):
    def fail(*_):
        raise OSError(said)

    monkeypatch.setattr(storage, "url_to_fs", fail)
    with pytest.raises(error, match=message) as raised:
        storage.resolve("hdfs://nn/a")
    assert "\n" not in str(raised.value)


def test_two_writers_of_one_file_do_no_harm(tmp_path):
    url = str(tmp_path / "a.bin")
    with storage.open_atomic(url) as slow:
        slow.write(b"slow")
        storage.write_bytes(url, b"quick")
        assert Path(url).read_bytes() == b"quick"
    assert Path(url).read_bytes() == b"slow"
    assert [file.name for file in tmp_path.iterdir()] == ["a.bin"]


def test_what_is_no_parquet_file_or_lacks_a_column_is_told_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 and then\nnothing")
    with pytest.raises(InputError) as caught:
        storage.read_footer("votes", str(path))
    told = str(caught.value)
    assert told.startswith(f"votes: {path} is not a readable Parquet file (")
    assert told.endswith("); remove or replace it") and "\n" not in told
    storage.write_parquet(str(path), pa.table({"id": [1, 2], "url": ["a", "b"]}))
    assert storage.read_footer("votes", str(path)).num_rows == 2
    with storage.open_parquet("votes", str(path)) as file:
        present = file.schema_arrow.names
    check_columns("votes", str(path), present, ["url", "id"])
    message = (
        r"^votes: .*a\.parquet has no column 'label', 'b' or 'c' \(its columns: id, url\); mend it$"
    )
    with pytest.raises(InputError, match=message):
        check_columns("votes", str(path), present, ["id", "label", "b", "c"], "mend it")


@pytest.mark.parametrize("folder", ["", "memory:/"])
def test_the_sha256_of_a_file_is_that_of_its_bytes_wherever_it_lies(tmp_path, folder):
    url, data = f"{folder}{tmp_path}/weights.bin", bytes(range(256)) * 5000  # of several pieces
    storage.write_bytes(url, data)
    assert storage.sha256_of(url) == hashlib.sha256(data).hexdigest()


ODD = ["run [1]", "a*b", "why?", "[ab]", "]x[", "{a,b}", "!x", "**"]


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("root", ["memory://", "file://"])
def test_names_that_look_like_patterns_are_names(root, name, tmp_path):
    """And what such a pattern would match stays where it is."""
    base = f"{root}{tmp_path}"
    others = ["run 1", "aXb", "whyX", "a", "b", "x", "]x["]
    for folder in {name, *others}:
        storage.write_bytes(storage.join(base, folder, "x.parquet"), folder.encode())
        storage.write_bytes(storage.join(base, folder, f"{name}.parquet"), folder.encode())
        storage.write_bytes(storage.join(base, folder, "deep", "y"), b"")
    url = storage.join(base, name)
    fs, path = storage.resolve(url)
    assert not storage.is_glob(url)
    assert storage.exists(url)
    in_folder = [file.rpartition("/")[2] for file in storage.files_of(url)]
    assert sorted(in_folder) == sorted([f"{name}.parquet", "x.parquet"])
    for pattern in ("*.parquet", "?.parquet", "[x].parquet"):
        found = storage.files_of(storage.join(url, pattern))
        assert f"{path}/x.parquet" in [storage.resolve(file)[1] for file in found], pattern
        assert {storage.resolve(file)[1].rpartition("/")[0] for file in found} == {path}
    one = storage.join(url, f"{name}.parquet")
    assert [storage.resolve(file)[1] for file in storage.files_of(one)] == [storage.resolve(one)[1]]
    storage.clear(url)
    assert not fs.exists(path)
    for folder in {*others} - {name}:
        assert storage.read_text(storage.join(base, folder, "x.parquet")) == folder
    storage.clear(base)
