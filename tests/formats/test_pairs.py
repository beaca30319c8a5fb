from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import label_spaces, schemas
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.pairs import plan_pairs, read_pairs

SPACE = LabelSpace("space.txt", 4, ("cat", "dog", "crane", "crane"))


def read(path: Path, space: LabelSpace = SPACE, schema: pa.Schema = schemas.GOLD) -> pa.Table:
    parts = plan_pairs("gold", str(path), schema, 10)
    return pa.concat_tables(t for part in parts for t in read_pairs("gold", part, schema, space))


def write(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    "labels",
    [
        pa.array(["dog", " cat", "1", None]),
        pa.array(["dog", "cat", "+1", None], pa.large_string()),
        pa.array(["dog", "cat", "1", None], pa.string_view()),
        pa.array([b"dog", b"cat", b"1", None]),
        pa.array(["dog", "cat", "1", None]).dictionary_encode(),
    ],
    ids=lambda labels: str(labels.type),
)
def test_classes_go_by_name_or_number_in_whatever_type_of_text(
    labels: pa.Array, tmp_path: Path
) -> None:
    gold = read(write(tmp_path / "g.parquet", image_id=[1, 2, 3, 4], label=labels))
    assert gold.schema == schemas.GOLD
    assert gold["label"].to_pylist() == [1, 0, 1, None]


def test_imagenet_goes_by_its_synsets_too(tmp_path: Path) -> None:
    labels = ["n04380533", "table lamp", "11054"]
    path = write(tmp_path / "g.parquet", image_id=[1, 2, 3], label=labels)
    assert read(path, load_label_space("imagenet21k"))["label"].to_pylist() == [11054] * 3


def test_a_name_is_read_from_csv_as_from_parquet(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text('image_id,"a\nnote",label\n1,"x\ny",dog\n2,,0\n')
    assert read(tmp_path / "g.csv").to_pylist() == [
        {"image_id": 1, "label": 1},
        {"image_id": 2, "label": 0},
    ]


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (["cat", "dog", "dgo"], "in row 3: 'dgo' is not an integer and not the name of a class of"),
        (["cat", "dog", "1.5"], "in row 3: '1.5' is not an integer"),
        (["1", "2", "crane"], r"in row 3: 'crane' is the name of several classes .*\(2 and 3\)"),
        ([1.0, 2.0, 0.5], "has 0.5 in row 3, which is not a whole number"),
        ([True, True, False], "is bool, it must be int32; write it as"),
        ([1, 2, 2**40], "has 1099511627776 in row 3"),
    ],
)
def test_a_label_that_is_no_class_is_named_with_its_row_and_the_remedy(
    labels: list[object], why: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "g.parquet", image_id=[1, 2, 3], label=labels)
    with pytest.raises(InputError, match=rf"^gold: \S*g.parquet: column 'label'.*{why}"):
        read(path)


def test_without_names_the_error_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "g.parquet", image_id=[1], label=["cat"])
    with pytest.raises(InputError, match=r"class of the space \(0..2\), which has no names; give"):
        read(path, LabelSpace("the space", 3))


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        (["img_0"], "column 'image_id' has 'img_0' in row 1"),
        (pa.array([2**63], pa.uint64()), "has 9223372036854775808 in row 1"),
        ([2.0**60], r"1.152921504606847e\+18 in row 1.*a float of this size is not exact"),
        (pa.array([5], pa.timestamp("us")), r"'image_id' is timestamp\[us\], it must be int64"),
        (pa.array([b"0" * 16], pa.uuid()), "'image_id' is extension<arrow.uuid>, it must be int64"),
    ],
)
def test_an_id_that_is_no_whole_number_is_named(ids: object, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^gold: .*g.parquet: .*{why}.*; write"):
        read(write(tmp_path / "g.parquet", image_id=ids, label=[1]))


def test_slices_are_read_by_the_same_rules(tmp_path: Path) -> None:
    path = write(tmp_path / "s.parquet", image_id=[1], slice=pa.array(["a"]).dictionary_encode())
    assert read(path, schema=schemas.SLICES).to_pylist() == [{"image_id": 1, "slice": "a"}]
    (tmp_path / "s.csv").write_bytes("image_id,slice\n1,a\n".encode("utf-16"))
    with pytest.raises(InputError, match=r"s.csv is not encoded as UTF-8; save it again as UTF-8"):
        read(tmp_path / "s.csv", schema=schemas.SLICES)
    (tmp_path / "s.csv").write_text("image_id,slice,slice\n1,a,b\n")
    with pytest.raises(InputError, match="two columns 'slice'; rename or drop one"):
        read(tmp_path / "s.csv", schema=schemas.SLICES)


def test_synsets_are_classes_without_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_spaces, "_folder", lambda: None)
    label_spaces._classes_by_name.cache_clear()
    path = write(tmp_path / "g.parquet", image_id=[1], label=["n01440764"])
    assert read(path, load_label_space("imagenet1k")).to_pylist() == [{"image_id": 1, "label": 0}]
    with pytest.raises(InputError, match="'n02084071' is not an integer and not the name of a"):
        read(
            write(tmp_path / "g.parquet", image_id=[1], label=["n02084071"]),
            load_label_space("imagenet1k"),
        )
    label_spaces._classes_by_name.cache_clear()
