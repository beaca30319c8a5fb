import asyncio
from itertools import pairwise

import pytest

from coyo_labeler.fetch.hosts import Budget, Hosts
from coyo_labeler.fetch.status import FetchError, Status


def test_a_host_is_asked_by_few_at_once_and_other_hosts_do_not_wait_for_it():
    running, most = {"a": 0, "b": 0}, {"a": 0, "b": 0}

    async def ask(hosts, name, release):
        async with hosts.turn(name, Budget(9)):
            running[name] += 1
            most[name] = max(most[name], running[name])
            await release.wait()
            running[name] -= 1

    async def work():
        hosts, release = Hosts(connections=2), asyncio.Event()
        tasks = [asyncio.create_task(ask(hosts, name, release)) for name in "aaaaab"]
        while running != {"a": 2, "b": 1}:
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*tasks)
        assert hosts._hosts == {}  # nothing is kept of hosts that gave no trouble

    asyncio.run(work())
    assert most == {"a": 2, "b": 1}


def test_requests_to_one_host_keep_their_distance():
    starts = []

    async def ask(hosts):
        async with hosts.turn("a", Budget(9)):
            starts.append(asyncio.get_running_loop().time())

    async def work():
        hosts = Hosts(connections=8, interval_seconds=0.05)
        await asyncio.gather(*(ask(hosts) for _ in range(4)))

    asyncio.run(work())
    assert all(later - one > 0.045 for one, later in pairwise(starts))


def test_a_budget_counts_work_and_not_the_wait_for_a_turn():
    async def work():
        hosts, first, second = Hosts(connections=1), Budget(5), Budget(5)

        async def ask(budget):
            async with hosts.turn("a", budget), budget.spend():
                await asyncio.sleep(0.05)

        await asyncio.gather(ask(first), ask(second))
        assert first.left == pytest.approx(second.left, abs=0.03)

    asyncio.run(work())


def test_a_budget_that_is_spent_is_a_timeout():
    async def work():
        budget = Budget(0.01)
        with pytest.raises(FetchError, match=r"not done in 0\.01 s") as failed:
            async with budget.spend():
                await asyncio.sleep(5)
        assert failed.value.status is Status.TIMEOUT
        assert budget.left <= 0

    asyncio.run(work())
