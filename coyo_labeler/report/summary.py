"""The report in a few lines of plain text."""

from collections.abc import Mapping
from typing import Any


def summarise(document: Mapping[str, Any]) -> str:
    """Counts, the threshold table and accuracies, for a terminal."""
    lines = [f"{document['title']}: {document['rows']:,} images in {document['labels']}"]
    used = document["classes"]["first_somewhere"]
    classes = document["label_space"]["classes"]
    lines.append(f"{used:,} of {classes:,} classes are the first label of some image")
    lines.append("threshold  labels/image  unique labels  images kept")
    for row in document["thresholds"]:
        lines.append(
            f"{row['threshold']:>9.2f}  {row['labels_per_image']:>12.2f}"
            f"  {row['unique_labels']:>13,}  {row['share_kept']:>11.2%}"
        )
    series = document["series"]
    for key, name in (("other_accuracy", series["other"]), ("accuracy", series["own"])):
        if key in document:
            scores = document[key]
            top1, ece = scores["top1"], scores["reliability"]["ece"]
            lines.append(
                f"accuracy, {name}: {top1['value']:.4f} ({top1['low']:.4f}–{top1['high']:.4f}),"
                f" top-5 {scores['top5']['value']:.4f},"
                f" mean average precision {scores['mean_average_precision']['value']:.4f},"
                f" calibration error {ece:.4f}, on {scores['images']:,} images with gold"
            )
    if "audit" in document:
        lines += describe_audit(document["audit"], series)
    if "agreement" in document:
        agreement = document["agreement"]
        lines.append(
            f"{agreement['changed']:,} of {agreement['images']:,} first labels differ from the "
            "compared ones"
        )
    return "\n".join(lines) + "\n"


def describe_audit(audit: Mapping[str, Any], series: Mapping[str, str]) -> list[str]:
    """The lines of the audit. series: the names of `own` and `other`."""
    lines = [f"{audit['answers']:,} answers about {audit['images']:,} images"]
    notes = []
    for key, name in (("compare", series["other"]), ("labels", series["own"])):
        if key in audit:
            of = audit[key]
            lines.append(
                f"audit, {name}: accuracy {of['accuracy']:.4f} ({of['low']:.4f}–{of['high']:.4f}) "
                f"by {of['answers']:,} answers; {of['further_answers']:,} more for "
                f"± {audit['wanted_interval']:g}"
            )
        elif audit.get(f"{key}_note"):
            notes.append(f"no accuracy is estimated: {audit[f'{key}_note']}")
    if audit.get("workers_note"):
        notes.append(f"audit: {audit['workers_note']}")
    return lines + list(dict.fromkeys(notes))
