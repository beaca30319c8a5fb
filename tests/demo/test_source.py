import io
from collections import Counter

import imagehash
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coyo_labeler import storage
from coyo_labeler.demo import digits, source
from coyo_labeler.demo.annotators import LOOKS_LIKE, skills


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    source.write_source(str(folder), port=18127)
    return folder


def test_the_source_holds_every_digit_and_the_faults_of_a_crawl(folder):
    table = pq.read_table(folder / "part-00000.parquet")
    assert table.schema.equals(source.SOURCE)
    kinds = Counter(url.split("/")[3] for url in table["url"].to_pylist() if "18127" in url)
    assert kinds["gone"] == source.DEAD
    assert kinds["slow"] == source.SLOW
    assert table.num_rows == 1797 + source.COPIES + 24
    assert len(list((folder / "images").iterdir())) == 1797


def test_copies_have_higher_ids_than_what_they_copy(folder):
    table = pq.read_table(folder / "part-00000.parquet").to_pylist()
    first = {}
    for row in table[:1797]:
        first.setdefault(row["image_phash"], row["id"])
    copies = table[1797 : 1797 + source.COPIES]
    assert all(first[row["image_phash"]] < row["id"] for row in copies)


def test_hashes_are_of_the_files(folder):
    table = pq.read_table(folder / "part-00000.parquet").to_pylist()
    for row in table[:5]:
        image = Image.open(folder / "images" / row["url"].rpartition("/")[2])
        assert str(imagehash.phash(image)) == row["image_phash"]
        assert image.size == (row["width"], row["height"])


def test_gold_holds_no_digit_that_the_teacher_learnt_from(folder, tmp_path):
    source.write_gold(str(tmp_path))
    gold = pq.read_table(tmp_path / "gold.parquet")
    assert gold.num_rows == 1797 - source.TEACHER_SCANS
    lines = storage.read_text(str(folder / "teacher-scans.csv")).splitlines()
    taught = {source.coyo_id(int(line.split(".")[0].strip('"'))) for line in lines[1:]}
    assert len(taught) == source.TEACHER_SCANS
    assert taught.isdisjoint(gold["image_id"].to_pylist())
    assert taught | set(gold["image_id"].to_pylist()) == source.truth().keys()
    source.write_known(str(tmp_path))
    known = pq.read_table(tmp_path / "known.parquet").to_pylist()
    assert {row["image_id"] for row in known} == taught
    assert all(row["label"] == source.truth()[row["image_id"]] for row in known[:20])


def test_a_photograph_is_the_same_every_time():
    ink, _ = digits.load()
    first, second = (digits.jpeg(digits.photograph(ink[3], seed=9)) for _ in range(2))
    assert first == second
    assert min(Image.open(io.BytesIO(first)).size) == digits.SHORT_SIDE


def test_annotators_differ_in_skill_and_err_towards_another_digit():
    assert np.ptp(skills()) > 0.3
    assert all(label != other for label, other in enumerate(LOOKS_LIKE))
