"""The stage on a set that can be checked by eye: each change is found, and nothing else is."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from coyo_labeler.config.compare import CompareSettings
from coyo_labeler.stages import STAGES, run_stage
from tests.compare.synthetic import CLASSES, base, crowd, of, renumbered, ring, thing, write

#: The halves of object 4, which is a hexagon.
LEFT_HALF = [35, 10, 58, 10, 58, 130, 35, 130, 10, 70]
RIGHT_HALF = [60, 10, 85, 10, 110, 70, 85, 130, 60, 130]

NOTHING = {"only_a": 0, "only_b": 0, "class_changed": 0, "crowd_changed": 0, "weak_pairs": 0}


def compared(folder: Path, a: Any, b: Any, **settings: Any) -> dict[str, Any]:
    """compare.json of two documents, or of what lies at two paths."""
    paths = [
        one if isinstance(one, str) else write(folder / f"{key}.json", one)
        for key, one in (("a", a), ("b", b))
    ]
    output = str(folder / "out")
    values = CompareSettings(a=paths[0], b=paths[1], output=output, processes=1, **settings)
    run_stage(STAGES["compare"], values)
    document: dict[str, Any] = json.loads((folder / "out" / "compare.json").read_text())
    return document


def changes(document: dict[str, Any]) -> dict[str, int]:
    return {name: document["matches"][name] for name in NOTHING}


def test_the_table_of_one_set(tmp_path: Path) -> None:
    document = compared(tmp_path, base(), base())
    expected = {
        "images": 5,
        "images_without_objects": 1,
        "categories": 4,
        "classes_in_use": 4,
        "instances": 13,
        "instances_without_crowds": 12,
        "crowds": 1,
        "objects_of_several_polygons": 1,
        "polygons": 13,
        "vertices": 13 * 6,
        "run_length_objects": 1,
        "box_objects": 0,
        "very_small": 1,
        "small": 2,
        "medium": 10,
        "large": 1,
    }
    assert {name: document["a"][name] for name in expected} == expected
    assert {name: document["b"][name] for name in expected} == expected
    assert set(document["differences"].values()) == {0}
    assert document["a"]["shares"]["very_small"] == pytest.approx(1 / 13)


def test_a_set_beside_itself_differs_in_nothing(tmp_path: Path) -> None:
    document = compared(tmp_path, base(), renumbered(base()))
    assert changes(document) == NOTHING
    assert document["matches"]["pairs"] == document["matches"]["within_class"]["pairs"] == 13
    assert document["matches"]["mean_iou"] == 1.0
    assert set(document["matches"]["splits"].values()) == {0}
    assert document["scores"]["iou_0.50_to_0.95"] == {"precision": 1, "recall": 1, "f1": 1}
    assert document["classes_with_as_many_objects"] == 4
    assert document["examples"] == []


def test_removed_and_added_objects(tmp_path: Path) -> None:
    altered = base()
    altered["annotations"] = [a for a in altered["annotations"] if a["id"] not in (2, 11)]
    altered["annotations"].append(thing(50, 5, 3, (20, 20, 50, 50)))
    document = compared(tmp_path, base(), renumbered(altered))
    assert changes(document) == {**NOTHING, "only_a": 2, "only_b": 1}
    assert document["matches"]["pairs"] == 11
    assert document["differences"]["instances"] == -1
    assert document["differences"]["images_without_objects"] == -1
    rows = {row["class"]: row for row in document["by_class"]}
    assert [rows[name]["difference"] for name in CLASSES] == [-1, -1, 1, 0]
    assert (rows["person"]["only_a"], rows["dog"]["only_a"], rows["kite"]["only_b"]) == (1, 1, 1)
    assert document["a"]["classes_with_more_objects"] == 2
    assert document["b"]["classes_with_more_objects"] == 1
    assert document["classes_with_as_many_objects"] == 1
    scores = document["scores"]["iou_0.50"]
    assert scores["precision"] == pytest.approx(10 / 11)  # crowds aside
    assert scores["recall"] == pytest.approx(10 / 12)
    assert [example["image"] for example in document["examples"]] == [
        "0001.jpg",
        "0004.jpg",
        "0005.jpg",
    ]


def test_a_moved_object_is_matched_while_it_overlaps_enough(tmp_path: Path) -> None:
    a, near, far, away = base(), base(), base(), base()
    for altered, step in ((near, 6), (far, 36), (away, 100)):
        of(altered, 10)["segmentation"] = [ring(10 + step, 10, 60, 60)]
        of(altered, 10)["bbox"][0] += step
    found = [changes(compared(tmp_path, a, b, overwrite=True)) for b in (near, far, away)]
    assert found[0] == NOTHING
    assert found[1] == {**NOTHING, "only_a": 1, "only_b": 1, "weak_pairs": 1}
    assert found[2] == {**NOTHING, "only_a": 1, "only_b": 1}
    document = compared(tmp_path, a, near, overwrite=True)
    assert 0.95 < document["matches"]["mean_iou"] < 1
    assert document["matches"]["mean_box_iou"] < 1
    assert sum(document["matches"]["histogram"]["counts"][:-1]) == 1
    strict = compared(tmp_path, a, near, overwrite=True, min_iou=0.95)
    assert changes(strict) == {**NOTHING, "only_a": 1, "only_b": 1, "weak_pairs": 1}


def test_a_relabelled_object_changes_its_class(tmp_path: Path) -> None:
    altered = base()
    of(altered, 3)["category_id"] = 4
    document = compared(tmp_path, base(), renumbered(altered))
    assert changes(document) == {**NOTHING, "class_changed": 1}
    within = document["matches"]["within_class"]
    assert (within["pairs"], within["only_a"], within["only_b"]) == (12, 1, 1)
    off = [row for row in document["confusion"] if row["a"] != row["b"]]
    assert off == [{"a": "dog", "b": "bench", "count": 1, "mean_iou": 1.0}]
    rows = {row["class"]: row for row in document["by_class"]}
    assert (rows["dog"]["changed_from"], rows["bench"]["changed_to"]) == (1, 1)


def test_a_split_object_and_a_split_crowd(tmp_path: Path) -> None:
    altered = base()
    altered["annotations"] = [a for a in altered["annotations"] if a["id"] not in (4, 8)]
    altered["annotations"] += [
        thing(60, 2, 3, (10, 10, 48, 120), segmentation=[LEFT_HALF]),
        thing(61, 2, 3, (60, 10, 50, 120), segmentation=[RIGHT_HALF]),
        *(thing(70 + n, 3, 1, (112 + 25 * n, 20, 22, 100)) for n in range(3)),
    ]
    splits = compared(tmp_path, base(), renumbered(altered))["matches"]["splits"]
    assert splits == {
        "split_crowds": 1,
        "split_objects": 1,
        "parts_in_b": 5,
        "joined_crowds": 0,
        "joined_objects": 0,
        "parts_in_a": 0,
    }
    back = compared(tmp_path, renumbered(altered), base(), overwrite=True)["matches"]["splits"]
    assert (back["joined_crowds"], back["joined_objects"], back["parts_in_a"]) == (1, 1, 5)


def test_an_object_within_another_splits_nothing(tmp_path: Path) -> None:
    altered = base()
    altered["annotations"] += [
        thing(60, 4, 1, (30, 30, 15, 15)),
        thing(61, 4, 1, (20, 40, 12, 12)),
        *(thing(70 + n, 3, 1, (112 + 25 * n, 20, 22, 100)) for n in range(3)),
    ]
    document = compared(tmp_path, base(), altered)
    assert changes(document) == {**NOTHING, "only_b": 5}
    assert document["matches"]["splits"]["split_objects"] == 0
    assert document["matches"]["splits"]["split_crowds"] == 0  # the crowd is still there


def test_what_a_crowd_covers_is_no_mistake(tmp_path: Path) -> None:
    altered = base()
    altered["annotations"].append(thing(60, 3, 1, (120, 20, 40, 40)))  # in the crowd of persons
    altered["annotations"].append(thing(61, 3, 2, (120, 80, 40, 40)))  # a dog there
    scores = compared(tmp_path, base(), altered)["scores"]["iou_0.50"]
    assert scores == {"precision": 12 / 13, "recall": 1.0, "f1": 24 / 25}


def test_boxes_against_polygons(tmp_path: Path) -> None:
    altered = base()
    of(altered, 1)["segmentation"] = [[10, 10, 50, 10, 50, 70, 10, 70]]
    del of(altered, 2)["segmentation"]
    of(altered, 3)["segmentation"] = []
    of(altered, 10)["bbox"] = [10, 10, 80, 60]
    boxes = compared(tmp_path, base(), altered)["matches"]["boxes"]
    assert boxes["polygon_in_a_box_in_b"]["pairs"] == 3
    assert boxes["polygon_in_a_box_in_b"]["mean_iou"] == pytest.approx(0.75, abs=0.02)
    assert boxes["box_in_a_polygon_in_b"]["pairs"] == 0
    assert (boxes["bbox_off_its_mask_a"], boxes["bbox_off_its_mask_b"]) == (0, 1)


def test_a_crowd_that_became_one_object(tmp_path: Path) -> None:
    altered = base()
    of(altered, 8)["iscrowd"] = 0
    document = compared(tmp_path, base(), altered)
    assert changes(document) == {**NOTHING, "crowd_changed": 1}
    assert document["differences"]["crowds"] == -1


def test_objects_of_images_that_cannot_be_compared_are_in_the_tables_only(tmp_path: Path) -> None:
    altered = base()
    altered["images"][0]["file_name"] = "elsewhere.jpg"
    altered["images"][1]["width"] = 400
    document = compared(tmp_path, base(), altered)
    images = document["images"]
    assert (images["in_both"], images["only_a"], images["only_b"]) == (4, 1, 1)
    assert (images["of_other_size"], images["first_of_other_size"]) == (1, ["0002.jpg"])
    assert images["objects_not_compared_a"] == images["objects_not_compared_b"] == 6
    assert document["a"]["instances"] == document["b"]["instances"] == 13
    assert changes(document) == NOTHING
    assert document["matches"]["pairs"] == 7


def test_images_pair_without_folders_where_none_pairs_with_them(tmp_path: Path) -> None:
    altered = base()
    for image in altered["images"]:
        image["file_name"] = f"train2017/{image['file_name']}"
    document = compared(tmp_path, base(), altered)
    assert document["images"]["paired_without_folders"] is True
    assert (document["images"]["in_both"], changes(document)) == (5, NOTHING)


def test_the_page_shows_the_images_that_differ_and_no_markup_of_strangers(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (200, 160), (10, 120, 10)).save(pictures / "0001.jpg")
    altered = base()
    altered["categories"][0]["name"] = "<script>alert(1)</script>"
    altered["annotations"] = [*altered["annotations"][1:], crowd(80, 2, 3, (120, 190))]
    compared(tmp_path, base(), altered, images=str(pictures), name_b="<i>B</i>", title="Two & more")
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<script" not in page
    assert "<i>B</i>" not in page
    assert "Two &amp; more" in page
    assert page.count("data:image/jpeg;base64,") == 8  # four images, both sides
    assert "with the objects of a" in page
    text = (tmp_path / "out" / "compare.txt").read_text()
    assert "objects of several polygons" in text


def test_a_file_name_does_not_lead_out_of_the_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "0009.jpg").write_bytes(b"")
    Image.new("RGB", (200, 160), (255, 0, 255)).save(tmp_path / "secret.png")
    document = base()
    document["images"][0]["file_name"] = "../secret.png"
    altered = copy.deepcopy(document)
    altered["annotations"] = altered["annotations"][1:]
    compared(tmp_path, document, altered, images=str(tmp_path / "pictures"))
    page = (tmp_path / "out" / "index.html").read_text()
    assert "The objects are drawn on gray" in page


def test_processes_do_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coyo_labeler.compare.batch._FEW_IMAGES", 1)
    monkeypatch.setattr("coyo_labeler.compare.batch.IMAGES", 2)
    altered = base()
    of(altered, 3)["category_id"] = 99
    paths = [write(tmp_path / f"{key}.json", d) for key, d in (("a", base()), ("b", altered))]
    texts = []
    for processes in (1, 2):
        output = tmp_path / f"out{processes}"
        run_stage(
            STAGES["compare"],
            CompareSettings(a=paths[0], b=paths[1], output=str(output), processes=processes),
        )
        texts.append((output / "compare.json").read_text())
    assert texts[0] == texts[1]
    assert '"unknown_category"' in texts[0]
