"""Sends 200 questions to a real Label Studio, answers as two people, collects, and compares."""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from coyo_labeler.annotation_tools.label_studio_api import VARIABLE
from coyo_labeler.cli import start_logging, summary_line
from coyo_labeler.manifest import Manifest
from coyo_labeler.stages import STAGES, read_stage_settings, run_stage
from tests.label_studio_check import pictures, questions
from tests.label_studio_check.server import Server

#: What each person says to question number n, by its options: a skip is None.
_SKIPS_EVERY, _TWICE_EVERY = 17, 23


def main() -> int:
    parser = argparse.ArgumentParser(prog="label-studio-check", description=__doc__)
    parser.add_argument("--label-studio", type=Path, required=True, help="its command")
    parser.add_argument("--output", type=Path, default=Path("out/label-studio-check"))
    parser.add_argument("--port", type=int, default=18128)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="takes the picture")
    parser.add_argument("--picture", type=Path, default=None, help="where the picture goes")
    arguments = parser.parse_args()
    folder = arguments.output.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start_logging("text")
    questions.write(folder)
    server = Server(arguments.label_studio.absolute(), folder, arguments.port)
    begun = time.monotonic()
    with server.running():
        say(f"Label Studio answers at {server.url} after {time.monotonic() - begun:.0f} s")
        tasks = send(server, folder)
        if arguments.chromium:
            picture = arguments.picture or folder / "label_studio.png"
            take_picture(server, tasks, arguments.chromium, picture.absolute())
        collect(server, folder, tasks)
    say("all as answered")
    return 0


def say(text: str) -> None:
    print(f"label-studio-check: {text}", flush=True)


def demand(holds: bool, what: str) -> None:
    """Stop where something does not hold."""
    if not holds:
        raise SystemExit(f"label-studio-check: FAILED: {what}")


def run(stage: str, **words: object) -> tuple[Manifest, bool]:
    settings = read_stage_settings(STAGES[stage], [f"{k}={v}" for k, v in words.items()])
    manifest, worked = run_stage(STAGES[stage], settings)
    say(summary_line(manifest, settings.output, worked))
    return manifest, worked


def send(server: Server, folder: Path) -> dict[str, int]:
    """Send the questions, twice; returns the task of each."""
    os.environ[VARIABLE] = server.token
    words = {
        "questions": folder / "questions.parquet",
        "to": "label_studio",
        "url": server.url,
        "images": folder / "images",
        "image_folder": server.files / "images",
        "document_root": server.files,
        "output": folder / "sent",
    }
    begun = time.monotonic()
    manifest, _ = run("send", **words)
    say(f"sent {manifest.rows.rows_out} questions in {time.monotonic() - begun:.1f} s")
    demand(not run("send", **words)[1], "a second send did something")
    lose_record(folder / "sent")
    run("send", **words)
    tasks = sent_tasks(folder / "sent")
    counts = [
        server.ask("GET", f"/api/projects/{project['id']}", server.token)["task_number"]
        for project in manifest.details["projects"]
    ]
    demand(sum(counts) == questions.QUESTIONS, f"the projects have {counts} tasks")
    say(f"after a run that was killed and its repetition the projects have {counts} tasks")
    check_what_left(server, tasks)
    check_images(server, tasks)
    return tasks


def collect(server: Server, folder: Path, tasks: dict[str, int]) -> None:
    """Answer, collect, compare; change an answer, and do so again."""
    annotator = server.add_annotator()
    expected, skips, twice, changed = answer(server, annotator, tasks)
    os.environ[VARIABLE] = server.personal_token()
    say("collects with a personal access token (JWT), which buys access tokens")
    words = {
        "questions": folder / "questions.parquet",
        "source": folder / "sent",
        "output": folder / "collected",
    }
    manifest, _ = run("collect", **words)
    reasons = dict(manifest.rows.rejected)
    demand(reasons == {"skipped": skips, "second_answer": twice}, f"rejects are {reasons}")
    compare(folder, expected)
    before = bytes_of(folder)
    demand(not run("collect", **words)[1], "a second collect did something")
    demand(bytes_of(folder) == before, "a second collect changed the tables")
    annotation, key, value = changed
    server.change(annotation, server.token, value)
    expected[key] = value
    run("collect", **words)
    compare(folder, expected)
    say("an answer that was changed has replaced itself; nothing else was read again")


def lose_record(output: Path) -> None:
    """Leave an output as a run that was killed before it could record what it had sent."""
    (output / "_manifest.json").unlink()
    shutil.rmtree(output / "sent")
    shutil.rmtree(output / "rejects")


def sent_tasks(output: Path) -> dict[str, int]:
    rows = pq.read_table(output / "sent").to_pylist()
    return {row["question_id"]: row["task"] for row in rows}


def check_what_left(server: Server, tasks: dict[str, int]) -> None:
    """Any user can read a task: it must say nothing of why it is asked."""
    known = {"image", "question_id", "image_id", "question", "choices", "definition", "label"}
    for question_id, task in tasks.items():
        document = server.ask("GET", f"/api/tasks/{task}", server.token)
        data = document["data"]
        demand(data.keys() <= known, f"task {task} has {sorted(data.keys() - known)}")
        demand(not document["meta"] and not document["predictions"], f"task {task} has more")
        is_choice = question_id.count(":") == 1
        demand(("choices" in data) == is_choice, f"task {task} asks something else")
        # 2^53 and more: a number would be rounded by a browser.
        demand(data["image_id"] == question_id.split(":")[1], f"task {task} has another image")
    say("no task says why it is asked, its risk, a probability or gold")


def check_images(server: Server, tasks: dict[str, int]) -> None:
    for task in list(tasks.values())[:3]:
        image = server.ask("GET", f"/api/tasks/{task}", server.token)["data"]["image"]
        response = server._http.request(
            "GET", server.url + image, headers={"Authorization": f"Token {server.token}"}
        )
        demand(response.data[:2] == b"\xff\xd8", f"{image} is no JPEG ({response.status})")
    say("Label Studio serves the images, from a folder of its own")


def options(server: Server, task: int) -> Iterator[str]:
    data = server.ask("GET", f"/api/tasks/{task}", server.token)["data"]
    choices = data.get("choices")
    if choices is None:
        yield from ("yes", "no", "unsure")
    else:
        yield from (choice["value"] for choice in choices)


def answer(
    server: Server, annotator: str, tasks: dict[str, int]
) -> tuple[dict[tuple[str, str], str], int, int, tuple[int, tuple[str, str], str]]:
    """Answer as two people: {(question, person): answer}, how many skips and second answers, and
    an answer to change: its number, whose it is, and its new value."""
    people = ((server.owner, server.token), (server.annotator, annotator))
    expected: dict[tuple[str, str], str] = {}
    skips = twice = 0
    changed = None
    for number, (question_id, task) in enumerate(tasks.items()):
        if number % 10 == 9:
            continue  # not answered yet
        values = list(options(server, task))
        for person, (name, token) in enumerate(people):
            value = values[(number + person) % len(values)]
            if (number + person) % _SKIPS_EVERY == 0:
                server.answer(task, token, None, 1.0)
                skips += 1
                continue
            annotation = server.answer(task, token, value, 2.0 + number / 100)
            expected[question_id, name] = value
            other = values[(number + person + 1) % len(values)]
            if number % _TWICE_EVERY == 5:
                server.answer(task, token, other, 9.0)
                twice += 1
            elif changed is None and name == server.owner and number > 100:
                changed = (annotation, (question_id, name), other)
    assert changed is not None
    say(f"answered {len(expected)} times as two people, skipped {skips}, twice {twice}")
    return expected, skips, twice, changed


def compare(folder: Path, expected: dict[tuple[str, str], str]) -> None:
    """Compare the votes with what was answered."""
    votes = pq.read_table(folder / "collected" / "votes").to_pylist()
    collected = {}
    for vote in votes:
        value = vote["response"] if vote["label"] is None or vote["response"] else vote["label"]
        name = vote["worker_id"].removeprefix("label_studio:")
        collected[vote["question_id"], name] = str(value)
        demand(vote["seconds"] >= 2.0, "a vote has lost its seconds")
        demand(vote["inclusion_probability"] == 0.25, "a vote has lost its probability")
    demand(len(collected) == len(votes), "a vote is there twice")
    wrong = {k for k in expected.keys() | collected.keys() if expected.get(k) != collected.get(k)}
    demand(not wrong, f"{len(wrong)} votes differ from the answers, such as {sorted(wrong)[:1]}")
    purposes = {vote["purpose"] for vote in votes}
    demand(purposes == {"uncertain", "audit", "gold"}, f"purposes are {purposes}")
    say(f"{len(votes)} votes are what was answered, with purpose, seconds and probability")


def bytes_of(folder: Path) -> list[bytes]:
    return [p.read_bytes() for p in sorted((folder / "collected").glob("*/*.parquet"))]


def take_picture(server: Server, tasks: dict[str, int], chromium: str, picture: Path) -> None:
    """A picture of the page on which people answer, with a photograph of a temple."""
    task = tasks[f"check:{2**53 + 1}"]
    project = server.ask("GET", f"/api/tasks/{task}", server.token)["project"]
    picture.parent.mkdir(parents=True, exist_ok=True)
    with pictures.with_cookie(server.url, server.session()) as url:
        pictures.take(chromium, f"{url}/projects/{project}/data?task={task}", picture, (1280, 960))
    say(f"the picture of the page is {picture}")


if __name__ == "__main__":
    sys.exit(main())
