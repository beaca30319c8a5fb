import json

import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.demo import summary
from coyo_labeler.manifest import Counts, Manifest


def manifest(stage, rows, tables=None):
    return Manifest(stage, "0", "f", "now", 1.5, rows, tables or {}, {}, {}, {})


def test_accuracy_is_over_all_gold_and_over_the_voted(tmp_path):
    """Images 1-4 have gold, 1-3 a label of the machine, 1-2 votes."""
    tables = {
        "gold/gold": {"image_id": [1, 2, 3, 4], "label": [7, 8, 9, 5]},
        "beliefs/00000": {"id": [1, 2, 3], "labels": [[7, 1], [1, 8], [9]]},
        "votes_alone/posterior/0": {"id": [1, 2], "labels": [[1, 7], [8, 1]]},
        "merged/posterior/0": {"id": [1, 2, 3], "labels": [[7, 1], [8, 1], [9]]},
    }
    for name, columns in tables.items():
        file = tmp_path / f"{name}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), file)
    manifests = {
        "fetch": manifest("fetch", Counts(4, 3, {"timeout": 1})),
        "merge": manifest("merge", Counts(3, 3), {"votes": Counts(4, 4)}),
    }
    pretraining = {
        "accuracy": {"machine": 0.5, "merged": 0.75},
        "held_out": 4,
        "seconds": {"machine": 2.0, "merged": 3.0},
    }
    report = {"accuracy": {"reliability": {"ece": 0.04}}}
    report["other_accuracy"] = {"reliability": {"ece": 0.05}}
    (tmp_path / "report").mkdir()
    (tmp_path / "report/report.json").write_text(json.dumps(report))
    asked = {
        "questions": {"uncertain": 9, "repeat": 0, "audit": 1},
        "answers": {"in": 20, "out": 19, "rejected": {"skipped": 1}},
    }
    settings = DemoSettings(output=str(tmp_path))
    document = summary.build(settings, manifests, {"source": 2.0}, pretraining, [asked])
    assert document["accuracy"] == {"machine": 0.6667, "votes": 0.3333, "merged": 1.0}
    assert document["accuracy_on_voted"] == {"machine": 0.5, "votes": 0.5, "merged": 1.0}
    assert document["rows"]["fetch"] == {"in": 4, "out": 3, "rejected": {"timeout": 1}}
    assert document["seconds"]["pretrain_vit"] == 5.0
    assert document["calibration_error"] == {"machine": 0.05, "merged": 0.04}
    text = summary.text(document, "out/demo")
    assert (
        "round 1: 10 questions (9 uncertain, 1 audit), 20 simulated answers (19 votes, 1 skipped)"
        in text
    )
    assert "calibration error: 0.050 of the machine, 0.040 after merging" in text
    assert "merged against the machine: +33.3 points" in text
    assert "timeout 1" in text
    assert "0.500 trained on the machine's labels, 0.750 on the merged labels" in text
