import asyncio
from itertools import pairwise

import pytest

from coyo_labeler.fetch import hosts as hosts_module
from coyo_labeler.fetch.hosts import Budget, Hosts, Slots
from coyo_labeler.fetch.status import FetchError, Status
from tests import clock


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

    clock.run(work)
    assert most == {"a": 2, "b": 1}


@pytest.mark.parametrize("stalls", [(), (0.3, 1.7, 2.2)], ids=["on time", "busy machine"])
def test_requests_to_one_host_keep_their_distance(stalls):
    starts = []

    async def ask(hosts, name):
        async with hosts.turn("a", Budget(9)):
            starts.append((asyncio.get_running_loop().time(), name))

    async def work():
        hosts = Hosts(connections=8, interval_seconds=0.5)
        for seconds in stalls:
            asyncio.get_running_loop().call_later(seconds, clock.stall, 0.4)
        await asyncio.gather(*(ask(hosts, name) for name in "abcdef"))

    clock.run(work)
    times, names = zip(*starts, strict=True)
    distances = [later - one for one, later in pairwise(times)]
    assert min(distances) >= 0.5 - 1e-9
    assert max(distances) == pytest.approx(0.9 if stalls else 0.5)
    assert "".join(names) == "abcdef"


def test_a_pause_that_a_host_asks_for_holds_for_those_who_wait_for_its_pace():
    starts, ends = [], []

    async def ask(hosts, budget):
        try:
            async with hosts.turn("a", budget):
                starts.append(asyncio.get_running_loop().time())
                await asyncio.sleep(0.1)
                if len(starts) == 1:
                    raise FetchError(Status.HTTP_THROTTLED, "HTTP 429", retry_after=20)
        except FetchError as error:
            ends.append(error.error)

    async def work():
        hosts = Hosts(connections=8, interval_seconds=0.25)
        budgets = [Budget(60), Budget(5), Budget(60), Budget(60)]
        await asyncio.gather(*(ask(hosts, budget) for budget in budgets))

    clock.run(work)
    assert starts == pytest.approx([0, 20.1, 20.35])
    assert ends == ["HTTP 429", "the host asked to wait 20 s"]


def test_a_budget_counts_work_and_not_the_wait_for_a_turn():
    async def work():
        hosts, first, second = Hosts(connections=1), Budget(5), Budget(5)

        async def ask(budget):
            async with hosts.turn("a", budget), budget.spend():
                await asyncio.sleep(1)

        await asyncio.gather(ask(first), ask(second))
        assert first.left == second.left == pytest.approx(4)

    clock.run(work)


def test_a_budget_that_is_spent_is_a_timeout():
    async def work():
        budget = Budget(0.01)
        with pytest.raises(FetchError, match=r"not done in 0\.01 s") as failed:
            async with budget.spend():
                await asyncio.sleep(5)
        assert failed.value.status is Status.TIMEOUT
        assert budget.left <= 0

    clock.run(work)


def test_the_lowest_rank_gets_the_next_slot():
    served = []

    async def ask(slots, rank):
        async with slots.hold(rank):
            served.append(rank)
            await asyncio.sleep(0)

    async def work():
        slots = Slots(1)
        ranks = [(0, 0), (1, 5), (0, 7), (1, 1), (0, 3)]
        await asyncio.gather(*(ask(slots, rank) for rank in ranks))

    clock.run(work)
    assert served == [(0, 0), (0, 3), (0, 7), (1, 1), (1, 5)]


@pytest.mark.parametrize("given", [False, True])
def test_a_slot_is_not_lost_with_one_who_gave_up_waiting(given):
    """given: it was given the slot in the very moment in which it was cancelled."""

    async def ask(slots, rank, release):
        async with slots.hold(rank):
            await release.wait()

    async def work():
        slots, release = Slots(1), asyncio.Event()
        first = asyncio.create_task(ask(slots, (0, 0), release))
        second = asyncio.create_task(ask(slots, (0, 1), release))
        await asyncio.sleep(0)
        if given:
            release.set()
            await first
        second.cancel()
        release.set()
        await asyncio.gather(first, second, return_exceptions=True)
        async with asyncio.timeout(1), slots.hold((0, 2)):
            pass

    clock.run(work)


def test_of_hosts_that_gave_trouble_so_many_are_remembered(monkeypatch):
    monkeypatch.setattr(hosts_module, "REMEMBERED_HOSTS", 10)

    async def fail(hosts, name):
        with pytest.raises(FetchError):
            async with hosts.turn(name, Budget(9)):
                raise FetchError(Status.DNS_NOT_FOUND, "the host's name is not known")

    async def work():
        hosts = Hosts(connections=8)
        for number in range(50):
            await fail(hosts, f"dead-{number}")
        assert list(hosts._hosts) == [f"dead-{number}" for number in range(40, 50)]
        assert not any(
            isinstance(value, BaseException)
            for host in hosts._hosts.values()
            for value in vars(host).values()
        )
        with pytest.raises(FetchError, match="not asked again"):
            async with hosts.turn("dead-49", Budget(9)):
                pass

    clock.run(work)
