"""Documents beside the tables, which a stranger may have written."""

import json
from pathlib import Path

import pytest

from coyo_labeler import storage
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.report import provenance

MANIFEST = {
    "stage": "fetch",
    "version": "1",
    "fingerprint": "f",
    "finished": "2026-01-01",
    "seconds": 1.5,
    "rows": {"in": 3, "out": 2, "rejected": {"timeout": 1}},
    "tables": {},
    "details": {
        "bytes": 1,
        "shards": 1,
        "transient": 0,
        "statistics": {"shorter_side": {"from": [0, 128.5], "rows": [1, 2]}},
    },
    "config": {},
    "inputs": {},
}
HISTORY = {
    "iterations": [{"objective": -1.0, "change": 0.1}, {"objective": -0.5}, {"objective": None}],
    "stopped": "converged",
    "calibration": {"a": 1, "b": 0, "expected_calibration_error": {"before": 0.1, "after": None}},
    "reliability": {"before": [[1, 0.5, 0.25]]},
}
WRONG = ["three", "3", "<b>", None, [], {}, [1], -1, 1.5, 10**400, float("nan"), True]


def paths(document, prefix=()):
    """The way to each value of a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


def replaced(document, path, value):
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


def read_all(folder: Path):
    """Everything that the page computes with."""
    settings = ReportSettings(
        labels=str(folder), images=str(folder), catalog=str(folder), output="x"
    )
    return (
        provenance.read_funnel(settings),
        provenance.read_catalog(settings),
        provenance.read_download(settings),
        provenance.read_fit(settings.labels),
    )


def test_what_the_stages_write_is_read(tmp_path):
    storage.write_json(str(tmp_path / "_manifest.json"), MANIFEST)
    storage.write_json(str(tmp_path / "history.json"), HISTORY)
    funnel, catalog, download, fit = read_all(tmp_path)
    assert funnel[0]["rejected"] == {"timeout": 1}
    assert catalog == MANIFEST["details"]["statistics"]
    assert download["images"] == 2
    assert len(fit["iterations"]) == 2


@pytest.mark.parametrize("name", ["_manifest.json", "history.json"])
def test_a_value_of_another_type_is_one_line_or_text(tmp_path, name):
    """Never an error of the program; numbers stay numbers."""
    storage.write_json(str(tmp_path / "_manifest.json"), MANIFEST)
    storage.write_json(str(tmp_path / "history.json"), HISTORY)
    document = MANIFEST if name == "_manifest.json" else HISTORY
    refused = 0
    for path in paths(document):
        for wrong in WRONG:
            changed = replaced(document, path, wrong)
            (tmp_path / name).write_text(json.dumps(changed))
            try:
                read = read_all(tmp_path)
            except InputError as error:
                assert name in str(error)
                assert "\n" not in str(error)
                refused += 1
            else:
                assert_drawn(read)
    assert refused > 60


def assert_drawn(read):
    """What the page does with these values."""
    funnel, catalog, download, fit = read
    for step in funnel:
        assert step["in"] / 2 + step["seconds"] + sum(step["rejected"].values()) >= 0
    for histogram in catalog.values():
        assert len(list(zip(histogram["from"], histogram["rows"], strict=True))) >= 0
        assert sum(map(float, histogram["rows"])) + sum(histogram["from"]) is not None
    assert sum(value for key, value in download.items() if key != "x") >= 0
    for row in fit.get("iterations", ()):
        assert float(row["objective"]) < 2.0
    for bins in fit.get("reliability", {}).values():
        assert all(n + belief + posterior is not None for n, belief, posterior in bins)
