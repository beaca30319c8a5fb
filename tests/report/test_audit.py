"""The report's audit on Spark, and its section from arrays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from coyo_labeler import storage
from coyo_labeler.audit import Answer, Answers, Lists, estimate_folders
from coyo_labeler.audit.tables import read_crowd
from coyo_labeler.config.report import ReportSettings
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.report import asked, crowd, summary
from coyo_labeler.stages import STAGES, run_stage
from tests.audit.crowds import Audit, Crowd, labels_table, simulate, votes_table

COLLECTED = Crowd(images=300, audit=90, risky=20, votes=2.0, verify=0.3, unsure=0.2, rounds=2)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Audit]:
    folder = tmp_path_factory.mktemp("report")
    audit = simulate(COLLECTED, 4)
    storage.write_parquet(f"{folder}/beliefs/0.parquet", labels_table(audit.beliefs))
    votes = votes_table(audit)
    storage.write_parquet(f"{folder}/collected/votes/0.parquet", votes)
    skipped = {field.name: pa.nulls(1, field.type) for field in schemas.COLLECT_REJECTS}
    skipped |= {"reason": pa.array(["skipped"]), "worker_id": pa.array(["worker 00"])}
    skipped["image_id"] = votes["image_id"].slice(0, 1).combine_chunks()
    rejects = pa.table(skipped, schema=schemas.COLLECT_REJECTS)
    storage.write_parquet(f"{folder}/collected/rejects/0.parquet", rejects)
    first = audit.asked[:40]
    key = {"question_id": [f"1:{i + 10}" for i in first], "image_id": first + 10}
    key["label"] = audit.truth[first].astype(np.int32)
    storage.write_parquet(f"{folder}/gold/0.parquet", pa.table(key, schema=schemas.GOLD_KEY))
    # Labels after a merge that left no manifest: every asked image has the voted label.
    merged = labels_table(audit.beliefs).to_pydict()
    for image, label in zip(audit.asked, audit.merged.label, strict=True):
        rest = [c for c in merged["labels"][image] if c != label]
        merged["labels"][image] = [int(label), *rest]
    table = pa.table(merged, schema=schemas.BELIEFS)
    storage.write_parquet(f"{folder}/merged/0.parquet", table)
    (folder / "slices.csv").write_text(
        "image_id,slice\n" + "".join(f"{i + 10},{'odd' if i % 2 else 'even'}\n" for i in range(300))
    )
    (folder / "names.txt").write_text("\n".join(f"class <{i}>" for i in range(10)))
    return folder, audit


def test_the_report_has_the_audit_of_both_tables(
    spark: SparkSession, simulated: tuple[Path, Audit], tmp_path: Path
) -> None:
    folder, audit = simulated
    settings = ReportSettings(
        labels=f"{folder}/merged",
        compare=f"{folder}/beliefs",
        votes=f"{folder}/collected",
        gold_key=f"{folder}/gold",
        slices=f"{folder}/slices.csv",
        label_space=f"{folder}/names.txt",
        cost_per_answer=0.5,
        output=str(tmp_path / "report"),
    )
    run_stage(STAGES["report"], settings, spark)
    document = storage.read_json(storage.join(settings.output, "report.json"))
    assert document is not None
    section = document["audit"]
    space = load_label_space(settings.label_space)
    alone = estimate_folders(
        settings.votes or "", settings.compare or "", space, gold_key=settings.gold_key
    )
    assert section["compare"]["accuracy"] == pytest.approx(alone.accuracy, abs=0.01)
    assert section["compare"]["answers"] == alone.answers == len(audit.answers)
    assert section["compare"]["low"] < audit.machine_accuracy < section["compare"]["high"]
    # What the votes changed does not count for images that nobody was asked about.
    gain = section["labels"]["accuracy"] - section["compare"]["accuracy"]
    assert gain == pytest.approx(audit.merged_accuracy - audit.machine_accuracy, abs=0.04)
    assert "changed only what was asked about" in section["labels_note"]
    assert {row["slice"] for row in section["slices"]} == {"even", "odd"}
    assert [row["round"] for row in section["rounds"]] == ["1", "2"]
    by_name = {row["worker_id"]: row for row in section["workers"]}
    assert sum(row["answers"] for row in by_name.values()) == len(audit.answers)
    assert sum(row["gold"]["n"] for row in by_name.values()) == section["gold_answers"] > 0
    skipped = by_name["worker 00"]["skipped"]
    assert skipped["n"] == by_name["worker 00"]["answers"] + 1
    assert section["time"]["cost"] == 0.5 * len(audit.answers)
    text = storage.read_text(settings.output + "/report.txt")
    assert f"by {len(audit.answers)} answers" in text
    page = storage.read_text(settings.output + "/index.html")
    assert "Accuracy by the audit" in page
    assert "class &lt;" in page


def test_votes_without_probabilities_are_shown_without_an_estimate(
    spark: SparkSession, simulated: tuple[Path, Audit], tmp_path: Path
) -> None:
    folder, _ = simulated
    (tmp_path / "votes.csv").write_text(
        "image_id,worker_id,label,response\n11,a,class <3>,\n11,b,4,\n12,a,2,unsure\n99999,a,1,\n"
    )
    settings = ReportSettings(
        labels=f"{folder}/beliefs",
        votes=str(tmp_path / "votes.csv"),
        label_space=f"{folder}/names.txt",
        output=str(tmp_path / "report"),
    )
    run_stage(STAGES["report"], settings, spark)
    document = storage.read_json(storage.join(settings.output, "report.json"))
    assert document is not None
    assert "labels" not in document["audit"]
    assert "no vote has an inclusion_probability" in document["audit"]["labels_note"]
    assert document["audit"]["agreement"]["choices"]["raw"] == 0.0
    assert "no accuracy is estimated" in storage.read_text(settings.output + "/report.txt")
    assert "No accuracy can be estimated" in storage.read_text(settings.output + "/index.html")


def test_a_large_crowd_is_examined_by_a_share_of_its_images(
    spark: SparkSession, simulated: tuple[Path, Audit], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, audit = simulated
    monkeypatch.setattr(asked, "MAX_IMAGES", 40)
    space = load_label_space(f"{folder}/names.txt")
    rows = asked.read_votes(spark, f"{folder}/collected", space)
    gathered = asked.gather_votes(rows)
    chosen = set(gathered.chosen["image_id"].to_pylist())
    assert (gathered.images, gathered.answers) == (len(audit.asked), len(audit.answers))
    assert 20 < len(chosen) < 60
    assert gathered.share == pytest.approx(40 / len(audit.asked))


def test_an_inclusion_probability_outside_its_range_names_the_value(
    simulated: tuple[Path, Audit], tmp_path: Path
) -> None:
    folder, _ = simulated
    (tmp_path / "votes.csv").write_text(
        "image_id,worker_id,label,inclusion_probability\n11,a,3,1.2\n"
    )
    space = load_label_space(f"{folder}/names.txt")
    with pytest.raises(InputError, match=r"inclusion_probability 1\.2 is not in \(0, 1\]"):
        estimate_folders(str(tmp_path / "votes.csv"), f"{folder}/beliefs", space)


def test_gold_judges_every_kind_of_answer() -> None:
    answers = Answers(
        image=np.array([0, 0, 0, 0, 0, 1, 0, 0]),
        worker=np.arange(8, dtype=np.int32),
        answer=np.array(
            [Answer.CHOICE, Answer.CHOICE, Answer.YES, Answer.NO, Answer.UNSURE, Answer.CHOICE,
             Answer.NONE, Answer.YES], np.int8,
        ),
        label=np.array([3, 4, 5, 3, 3, 3, -1, -1], np.int32),
        offered=Lists(np.array([0, 0, 0, 0, 0, 0, 0, 2, 4]), np.array([3, 4, 5, 6], np.int32)),
    )  # fmt: skip
    hits = crowd.gold_hits(answers, np.array([0, 0]), np.array([3, 5]), 10)
    assert hits.tolist() == [1, 0, 1, 0, -1, -1, 0, 1]


def test_the_report_says_where_nothing_shows_the_mistakes_of_workers() -> None:
    def answers(workers: list[int]) -> Answers:
        n = len(workers)
        return Answers(
            image=np.arange(n) // 2,
            worker=np.array(workers, np.int32),
            answer=np.full(n, Answer.CHOICE, np.int8),
            label=np.zeros(n, np.int32),
            offered=Lists.empty(n),
        )

    small, large = (
        {"deviation": 0.1, "from_workers": 0.02},
        {"deviation": 0.1, "from_workers": 0.08},
    )
    alone = crowd.note_on_workers(answers([0, 0, 1, 1]), 0, small)
    assert "no image was answered by two workers" in alone
    assert "select overlap=2" in alone
    assert crowd.note_on_workers(answers([0, 0, 1, 1]), 3, small) == ""
    assert crowd.note_on_workers(answers([0, 1, 1, 1]), 0, small) == ""
    assert "gold questions" in crowd.note_on_workers(answers([0, 1, 1, 1]), 0, large)
    document = {"answers": 4, "images": 2, "workers_note": alone}
    lines = summary.describe_audit(document, {"other": "", "own": ""})
    assert lines[-1].startswith("audit: no image was answered by two workers")


def test_classes_with_open_questions_come_first() -> None:
    rows = {
        "image_id": list(range(20)),
        "worker_id": ["a"] * 20,
        "label": pa.array([1] * 10 + [2] * 10, pa.int32()),
        "response": ["unsure"] * 6 + ["yes"] * 14,
    }
    read = read_crowd(pa.table({name: pa.array(v) for name, v in rows.items()}), 5)
    found = crowd.describe_classes(read, np.full(20, -1, dtype=np.int32), {2: 1}, 5)
    assert [(row["label"], row["unsure"], row["skipped"]) for row in found] == [
        (1, 6, 0),
        (2, 0, 1),
    ]


def test_skips_are_unknown_without_the_rejects_of_collect() -> None:
    rows = {"image_id": [0, 1], "worker_id": ["a", "a"], "label": pa.array([1, 2], pa.int32())}
    read = read_crowd(pa.table({name: pa.array(v) for name, v in rows.items()}), 5)
    first, hits = np.array([1, 2]), np.full(2, -1, dtype=np.int32)
    assert [row["skipped"] for row in crowd.describe_classes(read, first, None, 5)] == [None, None]
    (worker,) = crowd.describe_workers(read, hits, None)
    assert worker["skipped"]["n"] == 0
    (worker,) = crowd.describe_workers(read, hits, {})
    assert worker["skipped"]["n"] == 2
