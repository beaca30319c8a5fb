from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coyo_labeler.demo.annotators import skills, write_votes
from coyo_labeler.formats import schemas

IMAGES = 2000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Votes on images whose risk grows with their id, and the true class of each."""
    folder = tmp_path_factory.mktemp("annotators")
    top = np.linspace(0.99, 0.2, IMAGES)
    beliefs = pa.table(
        {"id": np.arange(IMAGES), "label_probs": [[float(p), 0.1] for p in top]},
    )
    (folder / "beliefs").mkdir()
    pq.write_table(beliefs, folder / "beliefs" / "00000.parquet")
    gold = {image: image % 10 for image in range(IMAGES)}
    write_votes(str(folder / "votes"), str(folder / "beliefs"), gold, seed=3)
    return pq.read_table(folder / "votes" / "votes.parquet"), gold


def test_there_are_035_votes_per_image_two_on_each_of_the_riskiest(drawn):
    votes, _ = drawn
    assert votes.schema == schemas.VOTES
    assert votes.num_rows == 0.35 * IMAGES
    asked = Counter(votes["image_id"].to_pylist())
    assert set(asked.values()) == {2}
    assert min(asked) == IMAGES - len(asked)


def test_no_annotator_sees_an_image_twice(drawn):
    votes, _ = drawn
    pairs = zip(votes["image_id"].to_pylist(), votes["worker_id"].to_pylist(), strict=True)
    assert max(Counter(pairs).values()) == 1


def test_annotators_are_as_good_as_their_skills(drawn):
    votes, gold = drawn
    right = [
        label == gold[image]
        for image, label in zip(
            votes["image_id"].to_pylist(), votes["label"].to_pylist(), strict=True
        )
    ]
    # of 700 draws with these skills the mean lies within 0.07 but once in tens of thousands
    assert np.mean(right) == pytest.approx(skills().mean(), abs=0.07)
