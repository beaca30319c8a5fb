import html
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard
from markdown_it import MarkdownIt

from coyo_labeler import storage
from coyo_labeler.config.export import ExportSettings
from coyo_labeler.export import markdown
from coyo_labeler.export.card import front_matter, render_card, size_category
from coyo_labeler.export.provenance import Provenance, read_provenance
from coyo_labeler.export.statistics import Statistics
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.manifest import Counts, Manifest

SIZES = {"rows": 3, "bytes": 1234, "nbytes": 4321}
STATISTICS = Statistics(
    rows=3,
    labels=5,
    most_labels=2,
    used=2,
    thresholds=((0.0, 1.67, 2, 1.0), (0.25, 1.0, 1, 0.33)),
    first=(0.1, 0.2, 0.3, 0.4, 0.5),
    classes=((1, 3, 2), (0, 2, 1)),
    median_side=(240, 200),
    voted=None,
)


def settings(**given: object) -> ExportSettings:
    return ExportSettings.model_validate({"labels": "l", "output": "o", **given})


def card(**given: object) -> str:
    space = LabelSpace("names.txt", 2, ("lamp | shade", "<b>boot</b>"))
    rejected = {"below_threshold": 7}
    return render_card(
        settings(**given), schemas.BELIEFS, SIZES, STATISTICS, Provenance(), rejected, space
    )


def test_huggingface_hub_reads_the_front_matter_it_was_given() -> None:
    read = DatasetCard(card())
    assert read.data.to_dict() == front_matter(settings(), schemas.BELIEFS, SIZES, voted=False)
    assert read.text.lstrip().startswith("# COYO labels")


def test_the_keys_hold_values_that_the_hub_knows() -> None:
    # The options of huggingface_hub.DatasetCardData's documentation.
    data = DatasetCard(card()).data
    creators = {"found", "crowdsourced", "expert-generated", "machine-generated", "other"}
    assert set(data.annotations_creators) <= creators | {"no-annotation"}
    assert set(data.language_creators) <= creators
    assert set(data.multilinguality) <= {"monolingual", "multilingual", "translation", "other"}
    assert data.license == "cc-by-4.0" and data.language == ["en"]
    assert data.size_categories == ["n<1K"]
    assert data.task_categories == ["image-classification"]
    assert data.task_ids == ["multi-label-image-classification"]
    assert data.pretty_name == "COYO labels"


def test_one_label_per_image_is_another_task() -> None:
    assert DatasetCard(card(max_labels=1)).data.task_ids == ["multi-class-image-classification"]


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (300_000_000, "100M<n<1B"),
        (10**12, "n>1T"),
    ],
)
def test_the_size_is_named_as_the_hub_names_it(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_names_cannot_break_the_page_or_its_tables() -> None:
    page = card(card={"pretty_name": "a: b\n---\n# c", "homepage": "https://example.com"})
    data = DatasetCard(page).data
    assert data.pretty_name == "a: b\n---\n# c"
    assert r"lamp \| shade" in page and "&lt;b&gt;boot" in page
    assert "Home: <https://example.com>" in page
    assert markdown.text("two\nlines") == "two lines"


HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "[link](javascript:alert(1))",
    "![picture](https://evil.example/track.png)",
    "<https://evil.example>",
    "[reference]: https://evil.example",
    "`code`` | `cell` \\| <b>cell</b>",
    "\\<b> \\\\<b> \\`<b>`",
    "a line\n\n# heading\n\n- list\r\n| row |\x1c\u2028---",
    "**bold** _stress_ ~~struck~~ $x^2$ {{ 7 * 7 }} {% raw %}",
)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_text_of_a_file_is_shown_as_it_was_written(hostile: str) -> None:
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    escaped = markdown.text(hostile)
    page = parser.render(
        f"# {escaped}\n\n| a | b |\n|---|---|\n| {escaped} | end |\n\nis {escaped}"
    )
    shown = html.escape(" ".join(hostile.split()))
    assert f"<h1>{shown}</h1>" in page
    assert f"<td>{shown}</td>\n<td>end</td>" in page
    assert f"<p>is {shown}</p>" in page


def test_no_bare_url_becomes_a_link_and_nothing_reorders_the_text() -> None:
    # GitHub and the Hub make links of these even without brackets.
    escaped = markdown.text("https://evil.example www.evil.example a@evil.example")
    assert "://" not in escaped and "www." not in escaped and r"a\@" in escaped
    assert markdown.text("a\u202eb\x00\x1b[31m") == r"ab\[31m"
    assert markdown.uri("https://a.example/x y>\n<b>") == "https://a.example/x%20y%3E%20%3Cb%3E"


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_strangers_folder_brings_no_html_into_the_card(hostile: str) -> None:
    """Whatever its manifests and files say, in the place of numbers too."""
    settings_of = dict.fromkeys(("truth", "support", "worker_model"), hostile)
    stages = [
        Manifest(
            name, hostile, hostile, hostile, 1.0, Counts(hostile, hostile, {hostile: hostile}),
            {"votes": Counts(hostile, hostile)},
            {
                "worker_model": hostile, "iterations": hostile, "stopped": hostile,
                "workers": hostile, "calibration": {"a": hostile, "b": hostile},
                "settings": hostile, "votes": hostile,
            },
            settings_of, {},
        )
        for name in ("label", "merge")
    ]  # fmt: skip
    page = render_card(
        settings(), schemas.BELIEFS, SIZES, STATISTICS,
        Provenance(tuple(stages), {hostile: hostile, "model": hostile}),
        {hostile: 7}, LabelSpace(hostile, 2, (hostile, "boot")),
    )  # fmt: skip
    body = DatasetCard(page).text
    tags = Tags()
    tags.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(body))
    assert tags.seen == PLAIN


PLAIN = {"h1", "h2", "p", "pre", "code", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)


def test_the_card_says_what_was_left_out_and_why() -> None:
    page = card(threshold=0.25, max_labels=3)
    assert "at least 0.25" in page and "at most 3 of these per image" in page
    assert "| below threshold | 7 |" in page
    assert "came without manifests" in page


def test_every_field_is_explained() -> None:
    page = card()
    assert all(f"| `{name}` |" in page for name in schemas.BELIEFS.names)
    space = LabelSpace("x", 2)
    posterior = render_card(
        settings(), schemas.POSTERIOR, SIZES, STATISTICS, Provenance(), {}, space
    )
    assert all(f"| `{name}` |" in posterior for name in schemas.POSTERIOR.names)


def test_the_front_matter_is_one_yaml_document() -> None:
    page = card()
    _, matter, _ = page.split("---\n", 2)
    assert yaml.safe_load(matter)["dataset_info"]["splits"][0]["num_examples"] == 3


def manifest_of(folder: Path, stage: str, before: object) -> None:
    names = {"merge": "beliefs", "label": "images", "fetch": "catalog", "ingest": "source"}
    document = Manifest(
        stage, "1", "f", "2026", 1.0, Counts(1, 1), {}, {}, {names[stage]: before}, {}
    ).to_json()
    storage.write_json(str(folder / "_manifest.json"), document)


@pytest.mark.parametrize(
    "before", ["itself", {"a": 1}, 7, None, "http://127.0.0.1:1/x", "s3://bucket/x", "x\0", ""]
)
def test_a_strangers_manifest_leads_nowhere_else(tmp_path: Path, before: object) -> None:
    """Neither round in a circle nor to another store."""
    manifest_of(tmp_path, "merge", str(tmp_path) if before == "itself" else before)
    read = read_provenance(str(tmp_path))
    assert [stage.stage for stage in read.stages] == ["merge"]


def test_stages_are_followed_back_in_order(tmp_path: Path) -> None:
    urls = {stage: tmp_path / stage for stage in ("ingest", "fetch", "label", "merge")}
    before = ""
    for stage, folder in urls.items():
        manifest_of(folder, stage, before)
        before = str(folder)
    read = read_provenance(before)
    assert [stage.stage for stage in read.stages] == list(urls)


def test_numbers_of_any_size_are_shown() -> None:
    assert markdown.significant(10**400).startswith("1000")
    assert markdown.significant(0.12345) == "0.1235"
