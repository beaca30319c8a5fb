import pytest

from coyo_labeler.data.split import parts_of


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 7, 8, 13])
@pytest.mark.parametrize("consumers", [1, 2, 3, 4, 6, 9, 16])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_sample_goes_to_exactly_one_consumer(
    shards: int, consumers: int, shuffle: bool
) -> None:
    sizes = [10 + shard for shard in range(shards)]
    seen = [
        (part.shard, position)
        for consumer in range(consumers)
        for part in parts_of(shards, consumer, consumers, seed=3, epoch=1, shuffle=shuffle)
        for position in range(sizes[part.shard])
        if part.holds(position)
    ]
    assert sorted(seen) == [(s, p) for s in range(shards) for p in range(sizes[s])]


def test_consumers_get_equal_shares_when_shards_do_not_divide() -> None:
    size = 12 * 50  # a multiple of the number of consumers
    for shards in (1, 5, 7, 13):
        counts = [
            sum(
                part.holds(position)
                for part in parts_of(shards, consumer, 12, seed=0, epoch=0, shuffle=True)
                for position in range(size)
            )
            for consumer in range(12)
        ]
        assert set(counts) == {shards * size // 12}


def test_a_consumer_reads_no_more_than_two_shards_in_part() -> None:
    for consumer in range(512):
        parts = parts_of(30_000, consumer, 512, seed=0, epoch=0, shuffle=True)
        assert len(parts) <= 30_000 // 512 + 2


def test_epochs_and_seeds_change_the_order_and_nothing_else_does() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [p.shard for p in parts_of(20, 0, 1, seed=seed, epoch=epoch, shuffle=True)]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(*each)) for each in [(0, 0), (0, 1), (1, 0), (1, 1)]}) == 4
    assert [p.shard for p in parts_of(4, 0, 1, seed=0, epoch=5, shuffle=False)] == [0, 1, 2, 3]
