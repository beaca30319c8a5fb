"""Files as people write them: shards, broken records, and what is no COCO file at all."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from coyo_labeler import cli
from coyo_labeler.compare.coco_files import read_instances
from coyo_labeler.errors import InputError
from tests.compare.synthetic import HEIGHT, WIDTH, base, of, write
from tests.compare.test_stage import compared

CLOSED = [10, 10, 50, 10, 50, 50, 10, 50]


def break_category(a: dict[str, Any]) -> None:
    a["category_id"] = 77


def drop_category(a: dict[str, Any]) -> None:
    del a["category_id"]


def break_image(a: dict[str, Any]) -> None:
    a["image_id"] = 12345


def three_numbers(a: dict[str, Any]) -> None:
    a["segmentation"] = [CLOSED, [1, 2, 3]]


def odd_numbers(a: dict[str, Any]) -> None:
    a["segmentation"] = [[*CLOSED, 7]]


def flat_polygon(a: dict[str, Any]) -> None:
    a["segmentation"] = CLOSED


def of_null(a: dict[str, Any]) -> None:
    a["segmentation"] = [[None, *CLOSED[1:]]]


def rle_size(a: dict[str, Any]) -> None:
    a["segmentation"] = {"counts": [HEIGHT * WIDTH], "size": [WIDTH, HEIGHT]}


def rle_short(a: dict[str, Any]) -> None:
    a["segmentation"] = {"counts": [5, 6], "size": [HEIGHT, WIDTH]}


def rle_negative(a: dict[str, Any]) -> None:
    a["segmentation"] = {"counts": [-10, HEIGHT * WIDTH + 10], "size": [HEIGHT, WIDTH]}


def rle_garbage(a: dict[str, Any]) -> None:
    a["segmentation"] = {"counts": "zzzz~~~~", "size": [HEIGHT, WIDTH]}


def nan_in_polygon(a: dict[str, Any]) -> None:
    a["segmentation"] = [[float("nan"), *CLOSED[1:]]]


def infinite_area(a: dict[str, Any]) -> None:
    a["area"] = float("-inf")


def endless_area(a: dict[str, Any]) -> None:
    a["area"] = 10**400


def negative_area(a: dict[str, Any]) -> None:
    a["area"] = -3


def text_box(a: dict[str, Any]) -> None:
    a["bbox"] = "10 10 40 40"


def box_of_three(a: dict[str, Any]) -> None:
    a["bbox"] = [1, 2, 3]


def negative_box(a: dict[str, Any]) -> None:
    a["bbox"] = [1, 2, -3, 4]


def no_shape(a: dict[str, Any]) -> None:
    del a["segmentation"], a["bbox"]


def far_away(a: dict[str, Any]) -> None:
    a["segmentation"] = [[1e12, 0, 0, 5, 6, 7]]


def outside(a: dict[str, Any]) -> None:
    a["segmentation"] = [[x + 210 for x in CLOSED]]


def crowd_in_words(a: dict[str, Any]) -> None:
    a["iscrowd"] = "no"


def repeat_id(a: dict[str, Any]) -> None:
    a["id"] = 1


BROKEN = [
    (break_category, "unknown_category"),
    (drop_category, "unknown_category"),
    (break_image, "unknown_image"),
    (three_numbers, "polygon"),
    (odd_numbers, "polygon"),
    (flat_polygon, "polygon"),
    (of_null, "polygon"),
    (rle_size, "rle_size"),
    (rle_short, "rle_counts"),
    (rle_negative, "rle_counts"),
    (rle_garbage, "rle_counts"),
    (nan_in_polygon, "not_finite"),
    (infinite_area, "not_finite"),
    (endless_area, "not_finite"),
    (negative_area, "area"),
    (text_box, "wrong_type"),
    (box_of_three, "box"),
    (negative_box, "box"),
    (no_shape, "no_shape"),
    (far_away, "outside_image"),
    (outside, "outside_image"),
    (crowd_in_words, "wrong_type"),
    (repeat_id, "duplicate_id"),
]


def rejected(document: dict[str, Any], table: str = "annotations") -> dict[str, int]:
    reasons = document["b"]["rejected"].get(table, {})
    return {reason: entry["count"] for reason, entry in reasons.items()}


@pytest.mark.parametrize(("breaks", "reason"), BROKEN, ids=[b.__name__ for b, _ in BROKEN])
def test_a_broken_annotation_costs_itself_and_is_named(
    tmp_path: Path, breaks: Any, reason: str
) -> None:
    altered = base()
    breaks(of(altered, 10))
    document = compared(tmp_path, base(), altered)
    assert rejected(document) == {reason: 1}
    first = document["b"]["rejected"]["annotations"][reason]["first"][0]
    assert first["file"] == "b.json"
    assert first.get("id") == 10 or first.get("number") == 9
    assert first["what"]
    assert document["b"]["instances"] == 12
    assert document["matches"]["only_a"] == 1
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert manifest["tables"]["b"] == {"in": 13, "out": 12, "rejected": {reason: 1}}


def test_all_of_it_broken_at_once_is_still_no_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered = base()
    for breaks, _ in BROKEN:
        of(altered, 10)["id"] = 10
        altered["annotations"].append(dict(of(base(), 10), id=900 + len(altered["annotations"])))
        breaks(altered["annotations"][-1])
    altered["annotations"] += [7, None, [], "x"]
    a, b = write(tmp_path / "a.json", base()), write(tmp_path / "b.json", altered)
    assert cli.main(["compare", f"a={a}", f"b={b}", f"output={tmp_path / 'out'}"]) == 0
    assert "rejected (area 1, box 2, duplicate_id 1, no_shape 1, not_an_object 4" in (
        capsys.readouterr().out
    )


def test_broken_images_and_categories_take_their_annotations_along(tmp_path: Path) -> None:
    altered = base()
    altered["images"][0] = {"id": 1}
    altered["images"][1]["width"] = -5
    altered["images"].append(dict(altered["images"][2], file_name="again.jpg"))
    altered["categories"][3] = {"id": 4, "name": None}
    document = compared(tmp_path, base(), altered)
    assert rejected(document, "images") == {"duplicate_id": 1, "image_size": 1, "missing_key": 1}
    assert rejected(document, "categories") == {"missing_key": 1}
    assert rejected(document) == {"unknown_category": 1, "unknown_image": 6}


def test_numbers_that_others_write_differently_are_read(tmp_path: Path) -> None:
    altered = base()
    for annotation in altered["annotations"]:
        annotation["category_id"] = float(annotation["category_id"])
        annotation["iscrowd"] = bool(annotation["iscrowd"])
        annotation["attributes"] = {"occluded": False}
    for image in altered["images"]:
        image["width"] = float(image["width"])
    document = compared(tmp_path, base(), altered)
    assert (rejected(document), document["matches"]["pairs"]) == ({}, 13)


def test_a_text_that_says_nan_is_a_text(tmp_path: Path) -> None:
    altered = base()
    altered["categories"][0]["name"] = 'a NaN, "quoted" Infinity'
    altered["annotations"][0]["area"] = float("nan")
    document = compared(tmp_path, base(), altered)
    assert rejected(document) == {"not_finite": 1}
    assert document["by_class"][4]["class"] == 'a NaN, "quoted" Infinity'


def shards(folder: Path) -> Path:
    """The base set as two shards whose ids begin anew; one is compressed."""
    folder.mkdir()
    whole = base()
    for number, images in enumerate(((1, 2), (3, 4, 5))):
        part = {
            "images": [i for i in whole["images"] if i["id"] in images],
            "annotations": [a for a in base()["annotations"] if a["image_id"] in images],
            "categories": whole["categories"],
        }
        for index, image in enumerate(part["images"]):
            for annotation in part["annotations"]:
                if annotation["image_id"] == image["id"]:
                    annotation["image_id"] = 1000 + index
            part["images"][index] = dict(image, id=1000 + index)
        for index, annotation in enumerate(part["annotations"]):
            annotation["id"] = index
        text = json.dumps(part).encode()
        if number:
            (folder / "shard-1.json.gz").write_bytes(gzip.compress(text))
        else:
            (folder / "shard-0.json").write_bytes(text)
    (folder / "_notes.json").write_text("not for us")
    (folder / "README.txt").write_text("nor this")
    return folder


def test_shards_are_put_together(tmp_path: Path) -> None:
    folder = shards(tmp_path / "shards")
    document = compared(tmp_path, base(), str(folder))
    assert (document["b"]["files"], document["b"]["categories"]) == (2, 4)
    assert document["b"]["instances"] == document["matches"]["pairs"] == 13
    assert rejected(document) == {}
    by_glob = compared(tmp_path, base(), str(folder / "shard-*"), overwrite=True)
    assert by_glob["b"]["instances"] == 13


def test_a_shard_may_lack_the_images_and_classes_of_its_annotations(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    whole = base()
    write(folder / "images.json", {"images": whole["images"]})
    write(folder / "objects.json", {"annotations": whole["annotations"]})
    write(folder / "classes.json", {"categories": whole["categories"]})
    document = compared(tmp_path, base(), str(folder))
    assert document["matches"]["pairs"] == 13


def test_an_annotation_in_two_shards_counts_once(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    for name in ("one.json", "two.json"):
        write(folder / name, base())
    document = compared(tmp_path, base(), str(folder))
    assert rejected(document) == {"duplicate_id": 13}
    assert document["b"]["instances"] == 13


NO_COCO = [
    (b"", "is empty"),
    (b"  \n", "is empty"),
    (b'{"images": [', "is no JSON"),
    (b'{"images": [], "annotations": [], "categories": []} x', "is no JSON"),
    (b"\x00\x01\x02\x80", "is no JSON"),
    (b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests lists thousands deep"),
    (b"[]", "is a list, such as detection results"),
    (b'"text"', "is no COCO instance JSON"),
    (b'{"a": 1}', "has no list 'images'"),
    (b'{"images": [], "categories": []}', "has no list 'annotations'"),
    (b'{"images": {}, "annotations": [], "categories": []}', "is no COCO instance JSON"),
]


@pytest.mark.parametrize(("content", "says"), NO_COCO, ids=[says for _, says in NO_COCO])
def test_what_is_no_coco_file_is_refused_by_name(
    tmp_path: Path, content: bytes, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.json").write_bytes(content)
    a = write(tmp_path / "a.json", base())
    words = [f"a={a}", f"b={tmp_path / 'b.json'}", f"output={tmp_path / 'out'}"]
    assert cli.main(["compare", *words]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: compare: b: ")
    assert says in error
    assert "b.json" in error


def test_a_damaged_gzip_file_is_refused_by_name(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps(base()).encode())
    for content in (whole[:-30], b"no gzip", whole[:40] + b"\xff\xff\xff" + whole[43:]):
        (tmp_path / "b.json.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"compare: b: .*b\.json\.gz is no complete gzip file"):
            read_instances("b", str(tmp_path / "b.json.gz"))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(base()).encode())
    assert len(read_instances("b", str(tmp_path / "b.json")).images) == 5


def test_a_folder_without_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"compare: a: .* has no \.json or \.json\.gz"):
        read_instances("a", str(tmp_path))
