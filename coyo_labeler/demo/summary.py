"""The demo's results: accuracy of the machine, of the votes and of both; rows by stage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coyo_labeler import storage
from coyo_labeler.config.demo import DemoSettings
from coyo_labeler.manifest import Manifest

#: The sets of labels: {name in the summary: folder}.
_LABELS = {"machine": "beliefs", "votes": "votes_alone", "merged": "merged"}


def build(
    settings: DemoSettings,
    manifests: Mapping[str, Manifest],
    seconds: Mapping[str, float],
    pretraining: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The document of `summary.json`.

    `accuracy` is over all images with gold; an image that nobody voted on has no label from votes
    alone and counts as wrong there. `accuracy_on_voted` is over the images with a vote.
    `pretraining` is copied, except for its seconds. `rounds` is what each round asked and got.
    `calibration_error` is that of `report.json`, over the images with gold.
    """
    out = settings.output
    gold = _labels(storage.join(out, "gold"), "image_id", "label")
    predicted = {
        name: _top_labels(storage.locate(storage.join(out, folder), "posterior"))
        for name, folder in _LABELS.items()
    }
    labelled = sorted(gold.keys() & predicted["machine"].keys())
    voted = [image for image in labelled if image in predicted["votes"]]
    stages = {name: manifest for name, manifest in manifests.items() if ":" not in name}
    return {
        "accuracy": {name: _accuracy(labels, gold, labelled) for name, labels in predicted.items()},
        "accuracy_on_voted": {
            name: _accuracy(labels, gold, voted) for name, labels in predicted.items()
        },
        "images": {
            "labelled": len(predicted["machine"]),
            "with_gold": len(labelled),
            "with_gold_and_votes": len(voted),
        },
        "rows": {name: manifest.rows.to_json() for name, manifest in stages.items()},
        "votes": manifests["merge"].tables["votes"].to_json(),
        "rounds": list(rounds),
        "calibration_error": _calibration_errors(out),
        "pretraining": {key: value for key, value in pretraining.items() if key != "seconds"},
        "seconds": {
            **seconds,
            **{name: manifest.seconds for name, manifest in stages.items()},
            "pretrain_vit": round(sum(pretraining["seconds"].values()), 3),
        },
    }


def text(document: Mapping[str, Any], out: str) -> str:
    """The summary as text, for a terminal."""
    images, accuracy = document["images"], document["accuracy"]
    on_voted, trained = document["accuracy_on_voted"], document["pretraining"]
    names = {
        "machine": "machine alone (the stand-in teacher)",
        "votes": "votes alone (EM without beliefs)",
        "merged": "merged (EM of both)",
    }
    votes = document["votes"]["out"] / images["labelled"]
    lines = [
        f"{'accuracy against gold':<38}{'all ' + format(images['with_gold'], ','):>10}"
        f"{'voted ' + format(images['with_gold_and_votes'], ','):>12}",
        *(
            f"{title:<38}{accuracy[name]:>10.3f}{on_voted[name]:>12.3f}"
            for name, title in names.items()
        ),
        f"merged against the machine: {_points(accuracy['merged'] - accuracy['machine'])}; "
        f"against the votes, on voted images: {_points(on_voted['merged'] - on_voted['votes'])}; "
        f"{votes:.2f} simulated votes per image",
        "an image without a vote has no label from votes alone, and counts as wrong there",
        "",
        *_calibration_line(document["calibration_error"]),
        f"accuracy of a tiny ViT on {trained['held_out']:,} images that it has not seen: "
        f"{trained['accuracy']['machine']:.3f} trained on the machine's labels, "
        f"{trained['accuracy']['merged']:.3f} on the merged labels",
        "",
        f"{'stage':<8}{'in':>8}{'out':>8}{'rejected':>10}   why",
    ]
    for stage, rows in document["rows"].items():
        why = ", ".join(f"{reason} {n}" for reason, n in rows["rejected"].items())
        lines.append(
            f"{stage:<8}{rows['in']:>8,}{rows['out']:>8,}{sum(rows['rejected'].values()):>10,}"
            f"   {why}".rstrip()
        )
    lines += ["", *_round_lines(document["rounds"])]
    folders = " ".join(f"{name}/" for name in _FOLDERS)
    lines += [
        "",
        f"folders  {out}/: {folders}",
        f"summary  {out}/summary.json",
        f"page     {out}/report/index.html",
    ]
    return "\n".join(lines)


_FOLDERS = (
    "source",
    "catalog",
    "images",
    "teacher",
    "beliefs",
    "rounds",
    "answers",
    "votes",
    "known",
    "gold",
    "merged",
    "report",
    "pretrain",
)


def _round_lines(rounds: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for number, asked in enumerate(rounds, 1):
        answers = asked["answers"]
        purposes = ", ".join(f"{n} {purpose}" for purpose, n in asked["questions"].items() if n)
        kinds = [f"{answers['out']} votes"]
        kinds += [f"{n} {reason}" for reason, n in answers["rejected"].items() if n]
        lines.append(
            f"round {number}: {sum(asked['questions'].values())} questions ({purposes}), "
            f"{answers['in']} simulated answers ({', '.join(kinds)})"
        )
    return lines


def _calibration_line(errors: Mapping[str, float]) -> list[str]:
    if not errors:
        return []
    return [
        f"expected calibration error: {errors['machine']:.3f} of the machine, "
        f"{errors['merged']:.3f} after merging"
    ]


def _calibration_errors(out: str) -> dict[str, float]:
    """Expected calibration error by set of labels, as the report has it."""
    report = storage.read_json(storage.join(out, "report", "report.json")) or {}
    sections = {"machine": "other_accuracy", "merged": "accuracy"}
    return {
        name: round(report[section]["reliability"]["ece"], 4)
        for name, section in sections.items()
        if section in report
    }


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f} points"


def _accuracy(labels: Mapping[int, int], gold: Mapping[int, int], images: list[int]) -> float:
    right = sum(labels.get(image) == gold[image] for image in images)
    return round(right / len(images), 4) if images else float("nan")


def _read(url: str, columns: list[str]) -> pa.Table:
    tables = []
    for file in storage.files_of(url):
        fs, path = storage.resolve(file)
        tables.append(pq.read_table(path, columns=columns, filesystem=fs))
    return pa.concat_tables(tables)


def _labels(url: str, key: str, value: str) -> dict[int, int]:
    table = _read(url, [key, value])
    return dict(zip(table[key].to_pylist(), table[value].to_pylist(), strict=True))


def _top_labels(url: str) -> dict[int, int]:
    """The first label of every image: labels are sorted by probability."""
    table = _read(url, ["id", "labels"]).combine_chunks()
    labels = table["labels"].combine_chunks()
    starts = np.asarray(labels.offsets)[:-1]
    top = labels.values.to_numpy()[starts]
    return dict(zip(table["id"].to_pylist(), top.tolist(), strict=True))
