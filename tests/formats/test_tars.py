import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest
import webdataset

from coyo_labeler.formats import tars
from coyo_labeler.formats.tars import DamagedTarError, groups, picture
from tests.memory import peak_growth
from tests.tars import write_members

MEMBERS = [("a.jpg", b"a" * 700), ("a.json", b"{}"), ("b.png", b"b" * 5), ("b.json", b"{}")]


def read(path: Path) -> list[tuple[str, dict[str, bytes]]]:
    with path.open("rb") as file:
        return list(groups(file, str(path)))


def test_members_of_one_key_come_together_in_their_order(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", MEMBERS)
    assert read(path) == [
        ("a", {"jpg": b"a" * 700, "json": b"{}"}),
        ("b", {"png": b"b" * 5, "json": b"{}"}),
    ]


def test_a_tar_cut_anywhere_is_damaged_and_what_stands_before_is_read(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", MEMBERS)
    whole = path.read_bytes()
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + tarfile.BLOCKSIZE
    for size in range(0, end + 1, 256):
        path.write_bytes(whole[:size])
        with pytest.raises(DamagedTarError, match=str(path)) as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert caught.value.why
    path.write_bytes(whole[:end])
    with path.open("rb") as file:
        reader = groups(file, str(path))
        assert next(reader) == ("a", {"jpg": b"a" * 700, "json": b"{}"})
        with pytest.raises(DamagedTarError, match="the end of the archive is missing"):
            next(reader)


def test_a_tar_that_goes_on_in_garbage_is_damaged(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", MEMBERS)
    data = bytearray(path.read_bytes())
    data[2560:3072] = b"garbage." * 64  # over the header of b.png
    path.write_bytes(data)
    with pytest.raises(DamagedTarError):
        read(path)


def test_an_archive_without_members_is_whole_and_an_empty_file_is_not(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", [])
    assert read(path) == []
    path.write_bytes(b"")
    with pytest.raises(DamagedTarError, match="empty file"):
        read(path)


def test_a_key_ends_at_the_first_dot_of_the_file_name(tmp_path: Path) -> None:
    members = [("v1.0/cat.JPG", b"1"), ("v1.0/cat.mask.png", b"2"), ("v1.0/dog.json", b"3")]
    path = write_members(tmp_path / "0.tar", members)
    assert read(path) == [("v1.0/cat", {"jpg": b"1"}), ("v1.0/dog", {"json": b"3"})]
    with webdataset.WebDataset(str(path), shardshuffle=False) as theirs:
        assert [sample["__key__"] for sample in theirs] == ["v1.0/cat", "v1.0/dog"]


def test_of_two_pictures_with_one_key_the_first_counts(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", [("a.json", b"{}"), ("a.webp", b"1"), ("a.jpg", b"2")])
    [(key, parts)] = read(path)
    assert (key, parts) == ("a", {"json": b"{}", "webp": b"1", "jpg": b"2"})
    assert picture(parts) == ("webp", b"1")
    assert picture({"json": b"{}"}) is None


def test_members_that_are_no_files_and_files_that_are_no_pictures_are_passed_over(
    tmp_path: Path,
) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for kind, name in (
            (tarfile.DIRTYPE, "folder"),
            (tarfile.SYMTYPE, "folder/link.jpg"),
            (tarfile.LNKTYPE, "folder/hard.jpg"),
            (tarfile.FIFOTYPE, "folder/pipe.jpg"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        for name in ("folder/a.txt", "folder/a.jpg", "folder/b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"word"))
    assert read(path) == [("folder/a", {"jpg": b"word"}), ("folder/b", {})]


def test_only_the_keys_wanted_come(tmp_path: Path) -> None:
    path = write_members(tmp_path / "0.tar", MEMBERS)
    with path.open("rb") as file:
        assert [key for key, _ in groups(file, "x", lambda key: key == "b")] == ["b"]


def test_a_long_tar_is_read_in_the_memory_of_one_sample(tmp_path: Path) -> None:
    size, count = 2**20, 60
    data = os.urandom(size)
    path = write_members(tmp_path / "0.tar", ((f"{n:05d}.jpg", data) for n in range(count)))
    with path.open("rb") as file, peak_growth() as grown:
        assert sum(len(parts["jpg"]) for _, parts in groups(file, "x")) == size * count
    assert grown[0] < 10 * size


def test_what_is_written_is_read_again_and_equal_samples_give_equal_bytes() -> None:
    samples = [("a", {"jpg": b"1" * 600, "json": b"{}"}), ("b", {"png": b"", "json": b"{}"})]
    first, second = io.BytesIO(), io.BytesIO()
    tars.write(first, samples)
    tars.write(second, iter(samples))
    assert first.getvalue() == second.getvalue()
    first.seek(0)
    assert list(groups(first, "memory")) == samples
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        facts = {(info.mode, info.mtime, info.uid, info.uname) for info in tar}
    assert facts == {(0o644, 0, 0, "")}


def test_the_error_goes_from_process_to_process() -> None:
    error = pickle.loads(pickle.dumps(DamagedTarError("s3://b/0.tar", "cut")))
    assert (error.url, error.why, str(error)) == ("s3://b/0.tar", "cut", "s3://b/0.tar: cut")


def test_a_tar_is_known_by_its_mark(tmp_path: Path) -> None:
    samples = [("a", {"jpg": b"1" * 600, "json": b"{}"})]
    marked, plain, empty = io.BytesIO(), io.BytesIO(), io.BytesIO()
    tars.write(marked, samples, "0123456789abcdef")
    tars.write(plain, samples)
    tars.write(empty, [], "0123456789abcdef")
    heads = [file.getvalue()[:512] for file in (marked, plain, empty)]
    assert [tars.mark_of(head) for head in heads] == ["0123456789abcdef", "", None]
    assert tars.mark_of(b"\x89PNG" * 128) == ""
    marked.seek(0)
    assert list(groups(marked, "memory")) == samples
