"""send into files, and the images that go with them."""

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import fsspec
import pytest

from coyo_labeler.annotation_tools.questions import Question
from coyo_labeler.errors import InputError
from coyo_labeler.formats import tars
from coyo_labeler.send.images import Images, Shown
from tests.annotation_tools.tables import FIRST, question, rows_of, run, write_questions

ROWS = [question(n) for n in range(4)]


@pytest.fixture
def send(tmp_path):
    def send(to, rows=None, **words):
        asked = write_questions(tmp_path, rows or ROWS)
        manifest, _ = run("send", questions=asked, to=to, output=tmp_path / "out", **words)
        return manifest, tmp_path / "out"

    return send


def test_label_studio_files_are_a_configuration_and_tasks(send):
    manifest, out = send("label_studio_files")
    config = ET.fromstring((out / "config.xml").read_text())
    (choices,) = config.iter("Choices")
    assert choices.get("value") == "$choices"
    tasks = json.loads((out / "tasks-00000.json").read_text())
    assert [task["data"]["question_id"] for task in tasks] == [row["question_id"] for row in ROWS]
    assert manifest.rows.rows_out == 4
    assert {row["project"] for row in rows_of(out, "sent")} == {"tasks-00000.json"}


def test_files_of_workers_and_kinds_are_apart(send):
    rows = [*ROWS, *(question(n, "verify", worker_id=f"w/{n}") for n in range(4, 6))]
    _, out = send("label_studio_files", rows)
    names = sorted(
        str(path.relative_to(out)) for path in out.rglob("*.[jx][sm]*") if path.name[0] != "_"
    )
    assert names == [
        "choice/config.xml",
        "choice/tasks-00000.json",
        "verify/config.xml",
        "verify/tasks-w_4-00000.json",
        "verify/tasks-w_5-00000.json",
    ]


def test_workers_whose_names_are_alike_have_files_of_their_own(send):
    long = "語" * 120
    workers = ["ann k", "ann_k", "ANN/K", "bob", long, f"{long}2"]
    rows = [question(n, worker_id=worker) for n, worker in enumerate(workers)]
    manifest, out = send("csv", rows)
    texts = {path.name: path.read_text() for path in out.glob("questions-*.csv")}
    assert len({name.casefold() for name in texts}) == manifest.rows.rows_out == len(workers)
    assert "questions-bob-00000.csv" in texts
    for row in rows_of(out, "sent"):
        assert row["question_id"] in texts[row["project"]]
        assert f",{row['worker_id']}," in texts[row["project"]]


def test_mturk_gets_a_template_and_rows_that_cannot_break_it(send, tmp_path):
    space = tmp_path / "classes.txt"
    space.write_text('a "quoted" <b>name</b>, alias\nit\'s\nplain\n')
    rows = [question(0, candidates=[0, 1]), question(1, candidates=[1, 2])]
    _, out = send("mturk_files", rows, label_space=space)
    template = (out / "template.html").read_text()
    (row, _) = csv.DictReader(io.StringIO((out / "questions-00000.csv").read_text()))
    assert all(f"${{{name}}}" in template for name in ("image_url", "question", "categories"))
    for name in row:
        template = template.replace(f"${{{name}}}", row[name])
    page = ET.fromstring(template[template.index("<crowd-form>") :])
    shown = json.loads(next(page.iter("crowd-image-classifier")).get("categories"))
    assert shown == ['a "quoted" <b>name</b>, alias [0]', "it's [1]", "none of these", "unsure"]


def test_csv_has_what_people_need_and_no_more(send):
    _, out = send("csv", [question(0), question(1)])
    text = (out / "questions-00000.csv").read_text()
    (first, _) = csv.DictReader(io.StringIO(text))
    assert first["question_id"] == f"r0001:{FIRST}"
    assert "11054 = table lamp: a lamp that sits on a table" in first["options"]
    assert not any(word in text for word in ("uncertain", "audit", "0.28125", "0.625", "0.40625"))


def test_classes_of_a_text_file_that_begin_alike_read_differently(send, tmp_path):
    space = tmp_path / "classes.txt"
    space.write_text("crane, bird\ncrane, machine\n")
    rows = [question(0, candidates=[0, 1]), question(1, "verify", label=1)]
    _, out = send("csv", rows, label_space=space)
    (choice, verify) = (
        next(csv.DictReader(io.StringIO((out / kind / "questions-00000.csv").read_text())))
        for kind in ("choice", "verify")
    )
    assert "0 = crane, bird\n1 = crane, machine\n" in choice["options"]
    assert verify["definition"] == "crane, machine"


def test_a_question_that_cannot_be_asked_is_a_reject(send):
    rows = [question(0), question(1, url=None), question(2, candidates=None)]
    manifest, out = send("label_studio_files", rows)
    assert dict(manifest.rows.rejected) == {"no_url": 1, "no_candidates": 1}
    assert {row["reason"] for row in rows_of(out, "rejects")} == {"no_url", "no_candidates"}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"kind": "survey"}, "kind is 'survey'"),
        ({"candidates": [8087, 30000]}, "class 30000 is outside imagenet21k"),
        ({"kind": "verify", "candidates": None}, "asks about no class"),
        ({"overlap": 0}, "overlap is 0"),
    ],
)
def test_a_wrong_question_is_named_with_its_row(send, fields, error):
    with pytest.raises(InputError, match=f"row 2: .*{error}"):
        send("csv", [question(0), {**question(1), **fields}])


def test_a_question_that_comes_twice_is_refused(send):
    with pytest.raises(InputError, match="comes twice"):
        send("csv", [question(0), question(0)])


# -- images ---------------------------------------------------------------------------------------


def write_tar(folder: Path, numbers) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    samples = [
        (f"00000{n:05d}", {"jpg": b"picture %d" % n, "json": b'{"id": %d}' % (FIRST + n)})
        for n in numbers
    ]
    with (folder / "00000.tar").open("wb") as file:
        tars.write(file, samples)
    return folder


def test_images_are_copied_below_the_folder_that_label_studio_serves(send, tmp_path):
    images = write_tar(tmp_path / "tars", range(3))
    files = tmp_path / "files" / "round 1"
    manifest, out = send(
        "label_studio_files", images=images, image_folder=files, document_root=tmp_path / "files"
    )
    assert dict(manifest.rows.rejected) == {"no_image": 1}
    tasks = json.loads((out / "tasks-00000.json").read_text())
    shown = [task["data"]["image"] for task in tasks]
    assert shown[1] == f"/data/local-files/?d=round%201/00000/{FIRST + 1}.jpg"
    assert (files / "00000" / f"{FIRST + 1}.jpg").read_bytes() == b"picture 1"


def test_only_wanted_images_are_copied_and_each_once(send, tmp_path):
    images = write_tar(tmp_path / "tars", range(9))
    _, out = send("csv", images=images)
    copied = sorted(path.name for path in (out / "images" / "00000").iterdir())
    assert copied == [f"{FIRST + n}.jpg" for n in range(4)]
    rows = csv.DictReader(io.StringIO((out / "questions-00000.csv").read_text()))
    assert next(row["image"] for row in rows) == f"images/00000/{FIRST}.jpg"
    kept = out / "images" / "00000" / copied[0]
    before = kept.stat().st_mtime_ns
    (out / "_manifest.json").unlink()
    run("send", questions=tmp_path / "questions", to="csv", output=out, images=images)
    assert kept.stat().st_mtime_ns == before


def test_images_may_be_served_from_a_url(send, tmp_path):
    images = write_tar(tmp_path / "tars", range(4))
    _, out = send("mturk_files", images=images, image_url="https://cdn.example/r1")
    (row, *_) = csv.DictReader(io.StringIO((out / "questions-00000.csv").read_text()))
    assert row["image_url"] == f"https://cdn.example/r1/00000/{FIRST}.jpg"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ({"document_root": "/elsewhere"}, "does not lie below /elsewhere"),
        ({"image_url": "signed"}, "signed needs an object store"),
        ({"image_url": "path"}, "label_studio_files cannot reach images by path"),
        ({"image_url": "https://x.example/r1?sig=s"}, r"r1\?sig=\*\*\*' is no URL of a folder"),
    ],
)
def test_a_folder_that_the_tool_cannot_reach_is_refused(send, tmp_path, words, error):
    images = write_tar(tmp_path / "tars", range(4))
    with pytest.raises(InputError, match=error):
        send("label_studio_files", images=images, **words)


def test_passwords_and_signatures_of_urls_are_not_recorded():
    url = "https://me:hunter2@x.example/7.jpg?sig=hunter2#hunter2"
    asked = Question("r:7", 7, None, url, "choice", None, (1,), None, None, 1, None)
    assert Images().find(asked) == Shown(url, "https://***@x.example/7.jpg")


def test_signed_urls_are_not_recorded(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    images = Images("s3://bucket/r1", {7: "00000/7.jpg"}, "signed", signed_seconds=600)
    asked = Question("r:7", 7, None, None, "choice", None, (1,), None, None, 1, None)
    shown = images.find(asked)
    assert shown is not None
    assert shown.recorded == "s3://bucket/r1/00000/7.jpg"
    assert "Signature" in shown.url
    assert "00000/7.jpg?" in shown.url


def test_a_manifest_for_a_cloud_storage_lists_the_images(send, tmp_path):
    from PIL import Image  # noqa: PLC0415

    buffer = io.BytesIO()
    Image.new("RGB", (16, 9)).save(buffer, "JPEG")
    folder = tmp_path / "tars"
    folder.mkdir()
    with (folder / "00000.tar").open("wb") as file:
        sample = {"jpg": buffer.getvalue(), "json": b'{"id": %d}' % FIRST}
        tars.write(file, [("000000000", sample)])
    _, out = send(
        "cvat_files",
        [question(0, "verify")],
        images=folder,
        image_folder="memory://bucket/r1",
        document_root="memory://bucket",
        cloud_storage=3,
    )
    document = json.loads((out / "tasks" / "00000.json").read_text())
    data = document["POST /api/tasks/{id}/data"]
    assert data["cloud_storage_id"] == 3
    assert data["server_files"] == ["r1/manifest.jsonl", f"r1/00000/{FIRST}.jpg"]
    lines = fsspec.filesystem("memory").cat_file("/bucket/r1/manifest.jsonl").decode().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"version": "1.1"},
        {"type": "images"},
        {
            "name": f"00000/{FIRST}",
            "extension": ".jpg",
            "width": 16,
            "height": 9,
            "meta": {"related_images": []},
        },
    ]


def test_cvat_downloads_from_the_url_of_a_folder(send, tmp_path):
    images = write_tar(tmp_path / "tars", range(1))
    rows, url = [question(0, "verify")], "https://cdn.example/r1"
    _, out = send("cvat_files", rows, images=images, image_url=url)
    document = json.loads((out / "tasks" / "00000.json").read_text())
    data = document["POST /api/tasks/{id}/data"]
    assert data["remote_files"] == [f"{url}/00000/{FIRST}.jpg"]
