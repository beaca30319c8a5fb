"""Small exports of every tool, in the forms that their servers have, about a few questions."""

import json
from typing import Any

from tests.annotation_tools.tables import FIRST, question

#: Six choices, then four verifications.
QUESTIONS = [question(n) for n in range(6)] + [question(n, "verify") for n in range(6, 10)]

_PREDICTION = {"id": 1, "result": [], "model_version": "beliefs", "score": 0.1}


def annotation(number: int, user: Any, value: str | None, **fields: Any) -> dict[str, Any]:
    """An annotation of Label Studio."""
    results = [] if value is None else [choices_of(value)]
    moment = f"2026-11-25T17:32:{number % 60:02d}.258017Z"
    return {
        "id": number,
        "completed_by": user,
        "result": results,
        "was_cancelled": value is None,
        "ground_truth": False,
        "created_at": moment,
        "updated_at": moment,
        "lead_time": 3.25,
        "prediction": _PREDICTION,
        "task": number,
        "project": 1,
        **fields,
    }


def choices_of(value: str) -> dict[str, Any]:
    return {
        "from_name": "answer",
        "to_name": "image",
        "type": "choices",
        "value": {"choices": [value]},
    }


def task(number: int, *annotations: Any) -> dict[str, Any]:
    """A task of Label Studio about the question of this number."""
    asked = QUESTIONS[number]
    return {
        "id": number + 1,
        "annotations": list(annotations),
        "drafts": [],
        "predictions": [_PREDICTION],
        "data": {
            "image": "/data/local-files/?d=x.jpg",
            "question_id": asked["question_id"],
            "image_id": str(asked["image_id"]),
            "choices": [{"value": "8087", "html": "lamp"}],
        },
        "meta": {},
        "updated_at": "2026-11-25T17:32:41.698726Z",
        "project": 1,
    }


LABEL_STUDIO = [
    task(0, annotation(1, 2, "8087"), annotation(2, 3, "11054"), annotation(3, 2, "none")),
    task(1, annotation(4, 2, None), annotation(5, 3, "NOT_A_CLASS")),
    task(2),
    task(3, annotation(6, 3, "8087", ground_truth=True)),
    task(6, annotation(7, {"id": 2, "email": "ann@example.org"}, "yes"), annotation(8, 3, "no")),
    task(7, annotation(9, 3, "unsure")),
]

CVAT_XML = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><job><id>12</id><size>3</size>
    <assignee><username>ann</username><email></email></assignee>
    <labels><label><name>yes</name></label><label><name>no</name></label></labels>
  </job></meta>
  <image id="0" name="00000/{FIRST + 6}.jpg" width="160" height="120">
    <tag label="yes" source="manual"></tag>
  </image>
  <image id="1" name="00000/{FIRST + 7}.jpg" width="160" height="120"></image>
  <image id="2" name="00000/00000_00008.jpg" width="160" height="120">
    <tag label="no" source="manual"></tag>
    <tag label="yes" source="auto"></tag>
  </image>
</annotations>
"""

CVAT_JOB = {
    "job": {
        "id": 12,
        "task_id": 4,
        "type": "replica",
        "assignee": {"id": 7, "username": "ann"},
        "state": "completed",
        "updated_date": "2026-11-25T17:00:00Z",
    },
    "data_meta": {
        "start_frame": 10,
        "stop_frame": 12,
        "deleted_frames": [],
        "included_frames": None,
        "frames": [{"name": f"00000/{FIRST + n}.jpg"} for n in (6, 7, 8)],
    },
    "annotations": {
        "version": 3,
        "tags": [
            {"id": 1, "frame": 10, "label_id": 33, "source": "manual", "attributes": []},
            {"id": 2, "frame": 12, "label_id": 34, "source": "auto", "attributes": []},
        ],
    },
    "labels": [{"id": 33, "name": "yes"}, {"id": 34, "name": "no"}],
}

_MTURK_COLUMNS = (
    "HITId,AssignmentId,WorkerId,AssignmentStatus,AcceptTime,SubmitTime,WorkTimeInSeconds,"
    "Input.image_url,Input.image_id,Input.label,Input.question_id,Answer.category.label,"
    "Approve,Reject"
)


def _mturk_row(number: int, worker: str, status: str, when: str, answer: str) -> str:
    asked = QUESTIONS[number]
    return (
        f'"3H0W","3ASG{number}{worker}","{worker}","{status}","{when}","{when}","9",'
        f'"https://x/1.jpg","{asked["image_id"]}","{asked["label"] or ""}",'
        f'"{asked["question_id"]}","{answer}","",""'
    )


MTURK = "\n".join(
    [
        _MTURK_COLUMNS,
        _mturk_row(6, "A1", "Submitted", "Tue Nov 24 10:05:09 PST 2026", "yes"),
        _mturk_row(6, "A2", "Rejected", "Tue Nov 24 10:06:02 PST 2026", "no"),
        _mturk_row(0, "A1", "Approved", "Wed Jul 01 10:06:02 PDT 2026", "lamp: a lamp [8087]"),
        "",
    ]
)

CROWDKIT = "\n".join(
    [
        "task,worker,label",
        f"{QUESTIONS[6]['question_id']},w1,yes",
        f"{FIRST},w1,lamp",
        f"{FIRST},w2,table lamp",
        "1,w2,yes",
        "",
    ]
)

TOLOKA = "\n".join(
    [
        "INPUT:image_id\tINPUT:label\tINPUT:question_id\tOUTPUT:result\tGOLDEN:result\t"
        "ASSIGNMENT:assignment_id\tASSIGNMENT:worker_id\tASSIGNMENT:status\t"
        "ASSIGNMENT:started\tASSIGNMENT:submitted",
        f"{FIRST + 6}\t8087\t{QUESTIONS[6]['question_id']}\tyes\t\ta1\tw1\tAPPROVED\t"
        "2026-11-24T10:00:00.123\t2026-11-24T10:00:09.456",
        f"{FIRST + 7}\t8087\t{QUESTIONS[7]['question_id']}\tno\t\ta2\tw1\tREJECTED\t"
        "2026-11-24T10:00:00.123\t2026-11-24T10:00:09.456",
        "",
    ]
)


def prodigy_row(number: int, answer: str, **fields: Any) -> dict[str, Any]:
    return {
        "image": "https://x/1.jpg",
        "meta": {"question_id": QUESTIONS[number]["question_id"]},
        "label": "lamp",
        "_task_hash": number,
        "_annotator_id": "ds-ann",
        "answer": answer,
        "_timestamp": 1795627941,
        **fields,
    }


PRODIGY = "\n".join(
    json.dumps(row)
    for row in (
        prodigy_row(6, "accept"),
        prodigy_row(7, "reject"),
        prodigy_row(8, "ignore"),
        prodigy_row(0, "accept", accept=["11054"]),
    )
)

#: Every export as text, with the ending of its file.
TEXTS = {
    "label_studio": (json.dumps(LABEL_STUDIO), ".json"),
    "cvat_xml": (CVAT_XML, ".xml"),
    "cvat_job": (json.dumps(CVAT_JOB), ".json"),
    "mturk": (MTURK, ".csv"),
    "crowdkit": (CROWDKIT, ".csv"),
    "toloka": (TOLOKA, ".tsv"),
    "prodigy": (PRODIGY, ".jsonl"),
}
