"""Every stage, disturbed at random: kills, overwrites, second runs, lost, cut and flipped files.

Whatever happens, a run ends in the tables of an undisturbed one or in an error of one line, and the
same command leads there in the end. CHAOS_SECONDS sets how long each stage goes on after its first
round, CHAOS_SEED with what.
"""

import asyncio
import os
import random
import shutil
import threading
import time
from collections.abc import Iterator

import pytest

from tests.chaos.disturbances import FILES, PROCESSES
from tests.chaos.pipeline import build
from tests.fetch.web import Web
from tests.label.conftest import one_thread, small_spec, small_teacher  # noqa: F401 - fixtures

SECONDS = float(os.environ.get("CHAOS_SECONDS", "4"))
SEED = int(os.environ.get("CHAOS_SEED", "17"))

STAGES = [
    "ingest",
    "fetch",
    "label",
    "merge",
    "report",
    "export-webdataset",
    "export-huggingface",
    "pretrain_vit",
]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(int(SECONDS * 4) + 900)]


@pytest.fixture(scope="module")
def site() -> Iterator[Web]:
    """A server whose answers do not change."""
    web = Web()
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(web.handle, "127.0.0.1", 0))
    web.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield web
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory, site, small_spec, spark):  # noqa: F811 - the fixture
    return build(tmp_path_factory.mktemp("chaos"), site, small_spec, spark)


@pytest.mark.parametrize("name", STAGES)
def test_nothing_is_lost_or_doubled_whatever_happens(name, pipeline):
    stage = pipeline[name]
    dice = random.Random(f"{SEED} {name}")
    until = time.monotonic() + SECONDS
    chosen = [dice.choice(PROCESSES), *dice.sample(FILES, 2)]
    while True:
        shutil.rmtree(stage.output, ignore_errors=True)
        stage.flipped, done = False, []
        for disturbance in chosen:
            done.append(disturbance.__name__)
            disturbance(stage, dice)
            stage.check(done)
        stage.end(done)
        if time.monotonic() > until:
            return
        chosen = dice.choices([*PROCESSES, *FILES], k=dice.randint(1, 4))
