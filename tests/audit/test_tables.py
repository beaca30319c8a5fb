from datetime import UTC, datetime

import krippendorff
import numpy as np
import pyarrow as pa
import pytest

from coyo_labeler import storage
from coyo_labeler.audit import Answer, Answers, Lists, estimate_folders
from coyo_labeler.audit.agreement import agreement, units_of
from coyo_labeler.audit.tables import LabelRows, divide_out, judge, read_crowd, single_truths
from coyo_labeler.errors import InputError
from coyo_labeler.formats.collected import plan_collected, read_collected
from coyo_labeler.formats.label_spaces import load_label_space
from tests.audit.crowds import Crowd, labels_table, simulate, votes_table


def votes(**columns):
    """Votes with these columns; the others as of two choices."""
    n = len(next(iter(columns.values())))
    rows = {"image_id": [7] * n, "worker_id": [f"w{i}" for i in range(n)], "label": [1] * n}
    return pa.table({name: pa.array(values) for name, values in (rows | columns).items()})


def test_every_kind_of_answer_is_read():
    crowd = read_crowd(
        votes(
            label=pa.array([3, 4, 4, 4, None, None], pa.int32()),
            response=[None, "yes", " NO ", "unsure", "none", "yes"],
            candidates=pa.array([None, None, None, None, [1, 2], [5, 6]], pa.list_(pa.int32())),
        ),
        10,
    )
    assert crowd.answers.answer.tolist() == [
        Answer.CHOICE, Answer.YES, Answer.NO, Answer.UNSURE, Answer.NONE, Answer.YES
    ]  # fmt: skip
    assert crowd.answers.label.tolist() == [3, 4, 4, 4, -1, -1]
    assert np.diff(crowd.answers.offered.offsets).tolist() == [0, 0, 0, 0, 2, 2]
    assert np.isnan(crowd.inclusion).all()
    assert (crowd.image.tolist(), crowd.rounds) == ([7], ("",))


def test_answers_about_two_sets_are_two():
    crowd = read_crowd(
        votes(
            worker_id=["a", "a", "a"],
            label=pa.array([None] * 3, pa.int32()),
            response=["yes", "no", "no"],
            candidates=pa.array([[1, 2], [3, 4], [1, 2]], pa.list_(pa.int32())),
        ),
        10,
    )
    assert crowd.answers.answer.tolist() == [Answer.NO, Answer.NO]
    assert crowd.answers.offered.label.tolist() == [3, 4, 1, 2]


def test_answers_of_an_earlier_round_come_first_whatever_the_order_of_rows():
    crowd = read_crowd(
        votes(
            label=pa.array([3, 1, 2, 4], pa.int32()),
            question_id=["10:7", "2:7", "2:7", "10:7"],
            candidates=pa.array([[3], [1, 5], [2], [4]], pa.list_(pa.int32())),
        ),
        10,
    )
    assert crowd.answers.label.tolist() == [1, 2, 3, 4]
    assert crowd.answers.offered.label.tolist() == [1, 5, 2, 3, 4]
    assert crowd.rounds == ("2", "10")


def test_the_last_answer_of_a_worker_to_a_question_counts():
    day = [datetime(2026, 1, day, tzinfo=UTC) for day in (3, 1, 2, 2)]
    crowd = read_crowd(
        votes(
            worker_id=["a", "a", "a", "b"],
            label=pa.array([1, 2, 3, 2], pa.int32()),
            response=[None, None, "yes", None],
            timestamp=pa.array(day, pa.timestamp("us", "UTC")),
        ),
        10,
    )
    assert crowd.answers.label.tolist() == [1, 3, 2]


def test_the_first_round_that_drew_an_image_counts_and_rounds_sort_as_numbers():
    crowd = read_crowd(
        votes(
            image_id=[1, 1, 2, 3, 3, 4],
            worker_id=["a", "b", "a", "a", "b", "a"],
            question_id=["2:1", "10:1", "10:2", "2:3", "10:3", None],
            inclusion_probability=[0.5, 1.0, 0.25, None, 1.0, None],
            purpose=["audit", "repeat", "audit", None, "repeat", None],
        ),
        10,
    )
    assert crowd.rounds == ("", "2", "10")
    assert crowd.inclusion.tolist()[:2] == [0.5, 0.25]
    assert np.isnan(crowd.inclusion[2:]).all()  # nobody drew them: they were asked about again
    assert crowd.round.tolist()[:2] == [1, 2]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [99]}, "the answer of 'w0' about image 7 names a class outside label_space"),
        ({"label": [-1]}, "names a class outside label_space"),
        ({"response": ["maybe"]}, "has a response that is none of yes, no, unsure and none"),
        ({"label": pa.array([None], pa.int32())}, "names no class"),
        ({"image_id": pa.array([None], pa.int64())}, "a row has no image_id"),
        ({"worker_id": pa.array([None], pa.string())}, "a row has no worker_id"),
        ({"candidates": pa.array([[1, 77]], pa.list_(pa.int32()))}, "candidates name a class"),
    ],
)
def test_a_row_that_is_no_vote_is_named(columns, message):
    with pytest.raises(InputError, match=message):
        read_crowd(votes(**columns), 10)


def test_no_votes_are_no_crowd():
    assert len(read_crowd(votes(label=pa.array([], pa.int32())), 10).image) == 0


def test_dividing_a_posterior_by_its_answers_gives_the_prior():
    prior = np.array([0.5, 0.3, 0.2])
    theta = np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    posterior = prior * theta[:, 1] * theta[:, 1]
    posterior /= posterior.sum()
    order = np.argsort(-posterior)
    lists = Lists(np.array([0, 3]), order.astype(np.int32), posterior[order])
    two = Answers(
        np.zeros(2, np.int64), np.arange(2, dtype=np.int32), np.zeros(2, np.int8),
        np.ones(2, np.int32), Lists.empty(2),
    )  # fmt: skip
    before = divide_out(lists, two, np.full(2, 0.8), 3)
    assert before.label.tolist() == [0, 1, 2]
    assert before.value == pytest.approx(prior)


def test_labels_of_images_are_looked_up_by_id():
    rows = pa.table({"id": [9, 5], "labels": [[1], [2, 0]], "label_probs": [[0.8], [0.6, 0.3]]})
    found = LabelRows.read(rows, "labels", 3).of(np.array([5, 6, 9]))
    assert found.offsets.tolist() == [0, 2, 2, 3]
    assert found.label.tolist() == [2, 0, 1]


def test_gold_with_several_classes_is_no_single_truth():
    found = single_truths([1, 2, 2, 3, 3], [4, 5, 6, 7, 7], np.array([1, 2, 3, 4]))
    assert found.tolist() == [4, -1, 7, -1]


def test_alpha_is_that_of_the_library():
    random = np.random.default_rng(1)
    unit, value = random.integers(0, 40, 150), random.integers(0, 4, 150)
    counts = np.zeros((40, 4))
    np.add.at(counts, (unit, value), 1)
    found = agreement(unit, value)
    library = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    assert found.alpha == pytest.approx(library)
    pairs = [(i, j) for i in range(150) for j in range(150) if i != j and unit[i] == unit[j]]
    assert found.raw == pytest.approx(np.mean([value[i] == value[j] for i, j in pairs]))
    assert agreement(np.arange(5), np.zeros(5, dtype=int)).raw is None
    assert agreement(np.zeros(5, dtype=int), np.zeros(5, dtype=int)).alpha is None


def test_verifications_of_different_classes_are_different_questions():
    answers = Answers(
        np.zeros(5, np.int64), np.arange(5, dtype=np.int32),
        np.array([0, 4, 1, 1, 2], np.int8), np.array([2, -1, 2, 3, 3], np.int32), Lists.empty(5),
    )  # fmt: skip
    unit, value = units_of(answers, 10)
    assert unit[0] == unit[1] != unit[2] != unit[3] == unit[4]
    assert value[0] != value[1]
    assert value[3] != value[4]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    crowd = Crowd(images=600, audit=150, votes=2.0, rounds=2, candidates=5, verify=0.3, unsure=0.2)
    audit = simulate(crowd, 2, merge=False)
    storage.write_parquet(f"{folder}/beliefs/0.parquet", labels_table(audit.beliefs))
    storage.write_parquet(f"{folder}/collected/votes/0.parquet", votes_table(audit))
    (folder / "names.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    return folder, audit


def test_folders_give_what_arrays_give(folders):
    folder, audit = folders
    space = load_label_space(f"{folder}/names.txt")
    found = estimate_folders(f"{folder}/collected", f"{folder}/beliefs", space, draws=200)
    assert found.low < audit.machine_accuracy < found.high
    crowd = read_crowd(votes_table(audit), 10)
    rows = LabelRows.read(labels_table(audit.beliefs), "labels", 10)
    everywhere = np.ones(len(crowd.image), dtype=bool)
    nothing = np.full(len(crowd.image), -1, dtype=np.int32)
    judged, answers = judge(crowd, everywhere, rows, rows, nothing, None, 10)
    assert judged.inclusion.tolist() == audit.machine.inclusion.tolist()
    assert judged.round.tolist() == audit.machine.round.tolist()
    assert sorted(answers.label.tolist()) == sorted(audit.answers.label.tolist())


def test_votes_on_other_images_are_refused_and_say_so(folders, tmp_path):
    folder, audit = folders
    moved = votes_table(audit)
    moved = moved.set_column(0, "image_id", pa.array(np.arange(len(moved)) + 10**6))
    storage.write_parquet(f"{tmp_path}/votes/0.parquet", moved)
    space = load_label_space(f"{folder}/names.txt")
    with pytest.raises(InputError, match="none of the images of"):
        estimate_folders(str(tmp_path), f"{folder}/beliefs", space)


def test_files_of_several_rounds_keep_the_columns_that_they_have(folders, tmp_path):
    """Votes from before the loop know nothing of their questions, and are listed first."""
    folder, audit = folders
    votes = votes_table(audit)
    plain = (
        votes.slice(0, 3)
        .select(["image_id", "worker_id"])
        .append_column("label", pa.array(["class 1", "2", "class 3"]))
    )
    storage.write_parquet(f"{tmp_path}/000/collected/votes/0.parquet", plain)
    storage.write_parquet(f"{tmp_path}/001/collected/votes/0.parquet", votes)
    (tmp_path / "000/collected/votes/1.csv").write_text("image_id,worker_id,label\n5,a,class 4\n")
    space = load_label_space(f"{folder}/names.txt")
    parts = plan_collected("votes", f"{tmp_path}/*/collected/votes", 100)
    read = pa.concat_tables([t for part in parts for t in read_collected(part, space)])
    assert read.num_rows == len(votes) + 4
    assert read["inclusion_probability"].null_count == 4
    assert read["label"].to_pylist()[:3] == [1, 2, 3]
