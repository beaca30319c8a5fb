"""Exports that something has mangled: votes, rejects or one clear error, and nothing else.

MANGLED_EXAMPLES sets how many are tried of each kind (15 by default, so that the suite stays
short); `MANGLED_EXAMPLES=1000 pytest tests/collect/test_mangled.py` is the long run.
"""

import json
import math
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coyo_labeler.annotation_tools.questions import QuestionIndex
from coyo_labeler.collect.answers import to_tables
from coyo_labeler.collect.judge import JUDGED, Rules, judge, rejects_of, votes_of
from coyo_labeler.collect.reasons import Reason
from coyo_labeler.collect.sources import find_files, read_files
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import load_label_space
from tests.annotation_tools.tables import write_questions
from tests.collect import exports

EXAMPLES = int(os.environ.get("MANGLED_EXAMPLES", "15"))

SPACE = load_label_space("imagenet21k")
BY_ID = {row["question_id"]: row for row in exports.QUESTIONS}

#: What may stand where something else is expected.
JUNK: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: None,
    lambda r: r.choice([True, False]),
    lambda r: r.choice([math.nan, math.inf, -math.inf, -0.0, 1e308, 2.0**60, 3.7]),
    lambda r: r.choice([0, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**300]),
    lambda r: r.choice(
        ["", " ", "yes", "8087", "none", "\ud800", "\0", "é" * 3, "🙂", "\u200b", "a\nb"]
    ),
    lambda r: r.choice(["2026-13-45T99:99:99Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59Z"]),
    lambda r: "x" * r.choice([10_000, 1_000_000]),
    lambda r: [],
    lambda r: {},
    lambda r: [[[{"a": [1, {"b": None}]}]]],
    lambda r: {"choices": ["8087", "11054"]},
    lambda r: nested(r.choice([10, 500, 20_000])),
)


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key or index) of everything in a JSON document, but for what is nested deeply."""
    waiting = [value]
    while waiting:
        container = waiting.pop()
        if len(waiting) > 10_000:
            return
        items = container.items() if isinstance(container, dict) else enumerate(container)
        for key, inner in items:
            yield container, key
            if isinstance(inner, dict | list):
                waiting.append(inner)


def mangle_json(document: Any, r: random.Random) -> Any:
    """Change up to a dozen places of a document."""
    for _ in range(r.randint(1, 12)):
        options = list(places(document))
        if not options:
            break
        container, key = r.choice(options)
        what = r.random()
        if what < 0.25:
            del container[key]
        elif what < 0.7:
            container[key] = r.choice(JUNK)(r)
        elif what < 0.8 and isinstance(container, list):
            container.append(container[key])
        elif what < 0.9 and isinstance(container, dict):
            container[r.choice(["Id", "result ", "annotations", "answer", "é"])] = container.pop(
                key
            )
        else:
            _, other = r.choice(options)
            container[key] = other
    return document


def text_of(document: Any) -> str:
    """JSON, also of what nests too deeply for Python's own writer."""
    try:
        return json.dumps(document)
    except RecursionError:
        return "[" * 50_000 + "1" + "]" * 50_000
    except ValueError:  # a circle
        return "[{}]"


def mangle_bytes(data: bytes, r: random.Random) -> bytes:
    """Change up to six runs of bytes."""
    changed = bytearray(data)
    for _ in range(r.randint(1, 6)):
        start = r.randrange(len(changed) + 1)
        end = min(len(changed), start + r.choice([0, 1, 1, 5, 40]))
        insert = r.choice(
            [
                b"",
                r.randbytes(3),
                b'"',
                b",",
                b"\n",
                b"\t",
                b"</image>",
                b"<tag label='yes'/>",
                b'<!DOCTYPE a [<!ENTITY b "c">]>',
                b"&b;",
                b"\xff\xfe",
                b"\0",
                bytes(changed[start:end]) * 3,
                b"9" * 50,
                b"A" * 200_000,
            ]
        )
        changed[start:end] = insert
    return bytes(changed)


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> QuestionIndex:
    folder = write_questions(tmp_path_factory.mktemp("asked"), exports.QUESTIONS)
    return QuestionIndex.read("collect", str(folder), SPACE)


def collect(path: Path, questions: QuestionIndex) -> pa.Table:
    files = find_files(str(path), "auto")
    answers = pa.concat_tables(
        [schemas.ANSWERS.empty_table(), *to_tables(read_files(files, {}, None))]
    )
    return judge(answers, questions, Rules("tool", SPACE, {}))


def check(path: Path, questions: QuestionIndex) -> bool:
    """Collect a file: every answer is a vote that merge can use, or a reject. Returns whether it
    could be read."""
    try:
        judged = collect(path, questions)
    except InputError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 5000
        return False
    assert judged.schema == JUDGED
    votes, rejects = pa.concat_tables(votes_of(judged)), pa.concat_tables(rejects_of(judged))
    assert votes.num_rows + rejects.num_rows == judged.num_rows
    assert {*rejects["reason"].to_pylist()} <= set(map(str, Reason))
    seen = set()
    for vote in votes.to_pylist():
        asked = BY_ID[vote["question_id"]]
        assert vote["image_id"] == asked["image_id"]
        assert vote["worker_id"].startswith("tool:")
        assert vote["purpose"] == asked["purpose"]
        if asked["kind"] == "verify":
            assert vote["response"] in {"yes", "no", "unsure"}
            assert vote["label"] == 8087
        elif vote["response"] is None:
            assert vote["label"] in asked["candidates"]
        else:
            assert vote["response"] in {"none", "unsure"}
            assert vote["label"] is None
        assert vote["seconds"] is None or 0 <= vote["seconds"] < 1e10
        key = vote["question_id"], vote["worker_id"]
        assert key not in seen
        seen.add(key)
    return True


@pytest.mark.parametrize("name", exports.TEXTS)
def test_the_exports_themselves_can_be_read(name, tmp_path, questions):
    text, ending = exports.TEXTS[name]
    path = tmp_path / f"export{ending}"
    path.write_text(text)
    assert check(path, questions)


relaxed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", ["label_studio", "cvat_job", "prodigy"])
@relaxed
@given(seed=st.integers(0, 2**32))
def test_mangled_json(name, tmp_path, questions, seed):
    r = random.Random(seed)
    text, ending = exports.TEXTS[name]
    lines = text.splitlines() if name == "prodigy" else [text]
    mangled = [text_of(mangle_json(json.loads(line), r)) for line in lines]
    path = tmp_path / f"export{ending}"
    path.write_text("\n".join(mangled))
    check(path, questions)


@pytest.mark.parametrize("name", exports.TEXTS)
@relaxed
@given(seed=st.integers(0, 2**32))
def test_mangled_bytes(name, tmp_path, questions, seed):
    text, ending = exports.TEXTS[name]
    path = tmp_path / f"export{ending}"
    path.write_bytes(mangle_bytes(text.encode(), random.Random(seed)))
    check(path, questions)


def test_a_text_of_ten_megabytes_is_a_reject(tmp_path, questions):
    huge = "é" * 10_000_000
    tasks = [
        exports.task(0, exports.annotation(1, 2, huge)),
        exports.task(1, exports.annotation(2, huge, "8087")),
        exports.task(2, exports.annotation(3, 2, "8087")),
    ]
    tasks[2]["data"]["question_id"] = huge
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks, ensure_ascii=False))
    assert check(path, questions)
    judged = collect(path, questions)
    assert judged.nbytes < 20_000
    reasons = sorted(filter(None, judged["reason"].to_pylist()))
    assert reasons == ["missing_worker", "unknown_choice", "unknown_question"]


@pytest.mark.parametrize("depth", [100, 2_000, 200_000])
def test_deep_nesting_is_a_reject_or_an_error(tmp_path, questions, depth):
    deep = "[" * depth + "]" * depth
    text = json.dumps([exports.task(0, exports.annotation(1, 2, "8087", result="DEEP"))])
    path = tmp_path / "export.json"
    path.write_text(text.replace('"DEEP"', deep))
    check(path, questions)
