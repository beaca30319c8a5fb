import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from coyo_labeler.config.report import ReportSettings
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.report.document import Context, describe
from coyo_labeler.report.page import render
from coyo_labeler.report.summary import summarise
from coyo_labeler.report.sums import Aggregates
from coyo_labeler.report.tally import Tally

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

#: Seconds that a busy machine may take to start a browser.
PATIENCE = 140

EVIL = '"><script>console.error("broke out")</script><b title=\''


def a_document(**settings: object) -> dict[str, Any]:
    """A report of three images with every section, all names hostile."""
    n = 3
    columns = {
        "id": pa.array([7, 8, 9]),
        "labels": pa.array([[0, 1], [1, 2], [2, 0]]),
        "label_probs": pa.array([[0.9, 0.1], [0.7, 0.2], [0.5, 0.5]]),
        "width": pa.array([300] * n),
        "height": pa.array([200] * n),
        "n_votes": pa.array([0, 1, 2]),
        "risk": pa.array([0.1, 0.3, 0.5]),
        "entropy": pa.array([0.3, 0.6, 0.7]),
        "gold": pa.array([[0], [1], [0]]),
        "other_labels": pa.array([[0], [2], [1]]),
        "other_probs": pa.array([[0.8], [0.6], [0.4]]),
        "slices": pa.array([[EVIL], [EVIL], ["night"]]),
    }
    tally = Tally(3, examples=3)
    tally.add(pa.RecordBatch.from_pydict(columns))
    worker = {"worker_id": EVIL, "n_votes": 3, "accuracy": 0.8, "log_odds_vs_random": 1.2}
    context = Context(
        series={"own": "merged", "other": "machine"},
        about={"version": "1", "fingerprint": "f"},
        examples={
            "uncertain": [
                {"id": 9, "label": 2, "prob": 0.5, "gold": [0], "other_label": 1, "other_prob": 0.4}
            ]
        },
        workers=[{**worker, "accuracy_low": 0.6, "accuracy_high": 0.9}],
        worker_pairs=[(0, 1, 2.5)],
        fit={
            "iterations": [{"objective": -9.0}, {"objective": -8.0}],
            "stopped": EVIL,
            "calibration": {"expected_calibration_error": {"before": 0.2, "after": 0.1}},
            "reliability": {"before": [[2.0, 1.0, 0.5]], "after": [[2.0, 1.0, 0.9]]},
        },
        funnel=[
            {"stage": "merge", "in": 3, "out": 3, "rejected": {}, "seconds": 150.0,
             "tables": {"votes": {"in": 4, "out": 3, "rejected": {EVIL: 1}}}}
        ],
        catalog={
            "shorter_side": {"from": [0, 200, 256, 320], "rows": [0, 2, 1, 0]},
            "aspect_ratio": {"from": [1.0, 1.5], "rows": [0, 0]},
            "rows_per_hash": {"from": [1, 2], "rows": [3, 1]},
        },
        download={"images": 3, "urls": 5, "shards": 1, "bytes": 12_000, "transient": 2},
    )  # fmt: skip
    given = ReportSettings.model_validate(
        {"labels": EVIL, "compare": "b", "gold": "g", "output": "o", "title": EVIL, **settings}
    )
    space = LabelSpace("names.txt", 3, (EVIL, "lamp & shade", "boot"))
    return describe(Aggregates.of(tally.total()), space, given, context)


class Tags(HTMLParser):
    """Tags opened and not closed, and all tags seen."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "rect", "circle", "line", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_hostile_names_stay_text_and_every_tag_is_closed() -> None:
    tags = Tags()
    tags.feed(render(a_document(), {9: "data:image/jpeg;base64,AAAA"}))
    assert tags.open == []
    assert "script" not in tags.seen
    assert {"svg", "table", "img", "details"} <= tags.seen


def with_text_replaced(document: Any) -> Any:
    """The same document with EVIL for every text in it, names of tables and reasons among them."""
    if isinstance(document, str):
        return EVIL
    if isinstance(document, dict):
        return {
            EVIL if key in NAMES else key: with_text_replaced(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [with_text_replaced(value) for value in document]
    return document


#: Keys that are names out of a manifest.
NAMES = ("a_table", "a_reason")


def test_no_text_of_the_document_becomes_a_tag() -> None:
    """Whatever manifests, histories and names say: they may come from a stranger's folder."""
    document = a_document()
    counts = {"in": 4, "out": 3, "rejected": {"a_reason": 1}}
    document["funnel"] = [
        {"stage": "merge", **counts, "seconds": 1.0, "tables": {"a_table": counts}}
    ]
    tags, hostile = Tags(), Tags()
    tags.feed(render(document, {}))
    page = render(with_text_replaced(document), {})
    hostile.feed(page)
    assert hostile.open == []
    assert hostile.seen == tags.seen
    assert page.count("&gt;&lt;script&gt;") > 40


def test_every_section_is_there_once_and_linked() -> None:
    page = render(a_document(), {})
    for section in ("accuracy", "examples", "votes", "agreement", "labels", "images", "rows"):
        assert page.count(f'id="{section}"') == 1
        assert page.count(f'href="#{section}"') == 1


def test_the_page_shows_the_catalog_and_the_download() -> None:
    page = render(a_document(), {})
    assert "from 200: 2 images" in page and "from 2: 1 pHashes" in page
    assert "The catalog: aspect ratios" not in page  # nothing was counted
    assert "Fetched 3 of 5 images in 1 shards, 12.0 kB, 4.0 kB per image. 2 failures may be" in page


def test_long_names_are_cut_at_a_synonym_and_shown_whole_in_a_tooltip() -> None:
    document = a_document()
    document["classes"]["head"][0]["name"] = "chinook, chinook salmon, king salmon, quinnat salmon"
    page = render(document, {})
    full = 'title="chinook, chinook salmon, king salmon, quinnat salmon"'
    assert f"<td><span {full}>chinook, chinook salmon…</span></td>" in page


def test_without_pictures_no_empty_frames_are_shown() -> None:
    assert 'class="none"' not in render(a_document(), {})
    assert 'class="none"' in render(a_document(), {7: "data:image/gif;base64,R0lGODlhAQABAAAAACw="})


def test_sections_without_data_are_absent() -> None:
    tally = Tally(3)
    names = {"labels": pa.list_(pa.int32()), "label_probs": pa.list_(pa.float32())}
    columns = {name: pa.array([], kind) for name, kind in names.items()}
    columns |= {name: pa.array([], pa.int32()) for name in ("id", "width", "height")}
    tally.add(pa.RecordBatch.from_pydict(columns))
    settings = ReportSettings(labels="l", output="o")
    context = Context({"own": "a", "other": "b"}, {"version": "1", "fingerprint": "f"})
    document = describe(Aggregates.of(tally.total()), LabelSpace("x", 3), settings, context)
    page = render(document, {})
    assert 'id="labels"' in page
    assert 'id="accuracy"' not in page and 'id="votes"' not in page and 'id="rows"' not in page
    assert "0 images in l" in summarise(document)


def browse(page: Path, profile: Path) -> str:
    """What Chromium writes to standard error, console messages among it, while it reads a page."""
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--no-first-run", "--disable-background-networking", "--disable-component-update",
        "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
        "--enable-logging=stderr", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "</html>" in done.stdout
    return done.stderr


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: apt-get install chromium")
def test_the_page_opens_in_chromium_without_a_console_message(tmp_path: Path) -> None:
    faulty = tmp_path / "faulty.html"
    faulty.write_text('<!DOCTYPE html><html><script>console.error("heard")</script></html>')
    assert "heard" in browse(faulty, tmp_path / "first")  # a message would be heard
    page = tmp_path / "index.html"
    page.write_text(render(a_document(), {9: "data:image/gif;base64,R0lGODlhAQABAAAAACw="}))
    assert "CONSOLE" not in browse(page, tmp_path / "second")
