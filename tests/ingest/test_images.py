"""The row that represents each image, against loops over every row."""

import numpy as np
import pytest

from coyo_labeler.ingest.images import first_of_each, one_hash_each

LEAST, MOST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@pytest.mark.parametrize("seed", range(5))
def test_an_id_keeps_its_lowest_hash(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = random.choice([LEAST, -3, 0, 5, 8, MOST], 30)
    bits = random.choice([LEAST, -1, 0, MOST], 30)
    of_id: dict[int, set[int]] = {}
    for image_id, hashed in zip(ids.tolist(), bits.tolist(), strict=True):
        of_id.setdefault(image_id, set()).add(hashed)
    each, lowest, several = one_hash_each(ids, bits)
    assert each.tolist() == sorted(of_id)
    assert lowest.tolist() == [min(of_id[one]) for one in sorted(of_id)]
    assert several.tolist() == [one for one in sorted(of_id) if len(of_id[one]) > 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_lowest_id_of_a_position_comes_first(seed: int) -> None:
    random = np.random.default_rng(seed)
    ids = random.permutation(np.concatenate([[LEAST, MOST], np.arange(-14, 14)]))
    positions = random.choice([LEAST, -7, 0, 2, MOST], 30)
    lowest: dict[int, int] = {}
    for index, position in enumerate(positions.tolist()):
        if position not in lowest or ids[index] < ids[lowest[position]]:
            lowest[position] = index
    assert first_of_each(positions, ids).tolist() == [
        lowest[position] for position in sorted(lowest)
    ]


def test_no_rows_have_no_images() -> None:
    none = np.empty(0, np.int64)
    assert [len(column) for column in one_hash_each(none, none)] == [0, 0, 0]
    assert len(first_of_each(none, none)) == 0
