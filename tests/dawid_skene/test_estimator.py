"""`DawidSkene` in a notebook."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.errors import InputError
from tests.merge.tables import posterior
from tests.merge.test_stage import merge, write_beliefs, write_votes

VOTES = pd.DataFrame(
    [
        ("t1", "ann", "cat"),
        ("t1", "bob", "cat"),
        ("t1", "cid", "dog"),
        ("t2", "ann", "dog"),
        ("t2", "bob", "dog"),
        ("t3", "cid", "owl"),
    ],
    columns=["task", "worker", "label"],
)


def test_tasks_workers_and_labels_keep_their_names():
    model = DawidSkene()
    assert model.fit_predict(VOTES).to_dict() == {"t1": "cat", "t2": "dog", "t3": "owl"}
    assert model.probas_.index.to_list() == ["t1", "t2", "t3"]
    assert model.probas_.columns.to_list() == ["cat", "dog", "owl"]
    assert model.workers_.index.to_list() == ["ann", "bob", "cid"]
    assert model.workers_.loc["ann", "accuracy"] > model.workers_.loc["cid", "accuracy"]


def test_arrow_and_pandas_and_our_own_column_names_give_the_same():
    renamed = VOTES.rename(columns={"task": "image_id", "worker": "worker_id"})
    expected = DawidSkene().fit_predict_proba(VOTES)
    for votes in (pa.Table.from_pandas(VOTES), renamed, VOTES.sample(frac=1, random_state=0)):
        pd.testing.assert_frame_equal(DawidSkene().fit_predict_proba(votes), expected)


def test_beliefs_join_in_and_images_without_votes_keep_theirs():
    beliefs = pd.DataFrame(
        {
            "task": ["t4", "t1"],
            "labels": [["owl", "cat"], ["dog"]],
            "label_probs": [[0.6, 0.3], [0.999]],
        }
    )
    model = DawidSkene(calibration="none").fit(VOTES, beliefs)
    assert model.labels_["t4"] == "owl"
    assert model.probas_.loc["t4"].to_list() == pytest.approx([0.3, 0.0, 0.6])
    alone = DawidSkene().fit_predict_proba(VOTES)
    assert model.probas_.loc["t1", "dog"] > alone.loc["t1", "dog"]


def test_gold_is_taken_as_given():
    gold = pd.DataFrame({"task": ["t1"], "label": ["dog"]})
    model = DawidSkene().fit(VOTES, gold=gold)
    assert model.probas_.loc["t1", "dog"] == 1.0
    assert (
        model.workers_.loc["cid", "accuracy"]
        > DawidSkene().fit(VOTES).workers_.loc["cid", "accuracy"]
    )


def test_the_posterior_lists_what_is_in_the_support_and_nothing_else():
    model = DawidSkene(labels=["cat", "dog", "owl", "yak"]).fit(VOTES)
    rows = model.posterior_.to_pandas()
    assert rows.loc[rows["task"] == "t2", "label"].to_list() == ["dog"]
    assert rows["probability"].between(0, 1).all()


def test_many_classes_need_no_more_memory_than_the_votes():
    random = np.random.default_rng(0)
    votes = pd.DataFrame(
        {
            "task": np.repeat(np.arange(3000), 2),
            "worker": random.integers(0, 50, 6000),
            "label": random.integers(0, 21_841, 6000),
        }
    )
    model = DawidSkene(labels=21_841, n_iter=3).fit(votes)
    assert model.posterior_.num_rows <= 6000
    with pytest.raises(InputError, match="too many for a dense table; use posterior_"):
        model.predict_proba()


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (
            VOTES.drop(columns="worker"),
            "votes: no column 'worker' .its columns: task, label.; rename",
        ),
        (VOTES.assign(label=[*VOTES["label"][:5], None]), "votes: row 6: label is missing"),
        (VOTES.assign(response="maybe"), "votes: row 1: response 'maybe' is none of yes, no"),
        ([1, 2], "list is no pandas DataFrame, Arrow table or Spark DataFrame"),
    ],
)
def test_what_is_wrong_with_the_votes_is_said(votes, message):
    with pytest.raises(InputError, match=message):
        DawidSkene().fit(votes)


def test_a_label_outside_the_given_ones_is_named():
    with pytest.raises(InputError, match="row 6: label 'owl' is not among the 2 labels"):
        DawidSkene(labels=["cat", "dog"]).fit(VOTES)


def test_a_model_that_is_fitted_again_keeps_nothing_of_before():
    model = DawidSkene().fit(VOTES)
    with pytest.raises(InputError):
        model.fit(VOTES.drop(columns="worker"))
    for name in ("labels_", "posterior_", "workers_", "loss_history_"):
        assert not hasattr(model, name)


def test_the_last_vote_by_the_clock_counts_as_in_the_stage(tmp_path):
    votes = pd.DataFrame(
        [(1, "a", 0, "2024-01-02"), (1, "a", 1, "2024-01-01"), (1, "b", 0, None)],
        columns=["task", "worker", "label", "timestamp"],
    )
    found = DawidSkene(labels=3).fit(votes)
    assert found.posterior_["label"].to_pylist() == [0]
    read = votes.assign(timestamp=pd.to_datetime(votes["timestamp"], utc=True))
    for same in (read, pa.Table.from_pandas(read)):
        assert DawidSkene(labels=3).fit(same).posterior_ == found.posterior_
    renamed = votes.rename(columns={"task": "image_id", "worker": "worker_id"})
    renamed.to_csv(tmp_path / "votes.csv", index=False)
    auto = {"worker_model": "auto", "class_prior": "auto"}
    merge(None, tmp_path, votes=tmp_path / "votes.csv", tolerance=1e-6, **auto)
    row = posterior(tmp_path / "out")[1]
    assert row["labels"] == [0]
    expected = found.posterior_["probability"].to_pylist()
    assert row["label_probs"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("calibration", [2.0, (2.0,)])
def test_a_given_temperature_is_the_stages(tmp_path, calibration):
    beliefs = {1: {0: 0.8, 1: 0.2}, 2: {0: 0.8, 1: 0.2}}
    votes = pd.DataFrame({"task": [1], "worker": ["a"], "label": [0]})
    table = pd.DataFrame(
        {
            "task": list(beliefs),
            "labels": [list(row) for row in beliefs.values()],
            "label_probs": [list(row.values()) for row in beliefs.values()],
        }
    )
    model = DawidSkene(labels=3, beliefs_are="categorical", calibration=calibration)
    found = model.fit(votes, table).probas_.loc[2].to_list()
    shares = np.sqrt([0.8, 0.2]) / np.sqrt([0.8, 0.2]).sum()
    assert found[:2] == pytest.approx(shares * (1 - 1e-4), rel=1e-6)
    merge(
        None, tmp_path, beliefs=write_beliefs(tmp_path / "beliefs", beliefs, 1),
        votes=write_votes(tmp_path / "v.csv", [(1, "a", 0)]), beliefs_are="categorical",
        calibration="2.0",
    )  # fmt: skip
    assert posterior(tmp_path / "out")[2]["label_probs"] == pytest.approx(found[:2], rel=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"beliefs_are": "categorical", "calibration": (2.0, 0.0)}, "have one number, a temper"),
        ({"calibration": "vote"}, "calibration.*'vote' is wrong; it must be votes, gold, none"),
        ({"prior_accuracy": 1.5}, "prior_accuracy.*must lie between 0 and 1"),
        ({"n_iter": 0}, "DawidSkene: n_iter: 0 is wrong; it must be greater than or equal to 1"),
        ({"tol": -1}, "DawidSkene: tol: -1 is wrong"),
        ({"worker_model": "coin"}, "worker_model: 'coin' is wrong; it must be 'auto', 'confusion'"),
        ({"prior_accuracy": "gold"}, "prior_accuracy: gold needs gold"),
    ],
)
def test_parameters_are_checked_as_the_stages_settings(given, message):
    with pytest.raises(InputError, match=message):
        DawidSkene(**given).fit(VOTES)


def test_the_accuracy_expected_of_workers_may_come_from_gold():
    """Two of three votes on gold are right: (2 + 1) / (3 + 2)."""
    gold = pd.DataFrame({"task": ["t1"], "label": ["cat"]})
    given = {"prior_strength": 1e9, "pooling": "none", "n_iter": 2}
    model = DawidSkene(prior_accuracy="gold", **given).fit(VOTES, gold=gold)
    assert model.workers_["accuracy"].to_list() == pytest.approx([0.6] * 3, rel=1e-6)


def test_a_task_with_two_true_labels_is_refused_unless_it_may_have_them():
    gold = pd.DataFrame({"task": ["t1", "t1"], "label": ["cat", "dog"]})
    with pytest.raises(InputError, match="gold: task t1 has two labels; drop one, or set truth="):
        DawidSkene().fit(VOTES, gold=gold)
    found = DawidSkene(truth="multi").fit(VOTES, gold=gold).probas_.loc["t1"]
    assert found.to_dict() == {"cat": 1.0, "dog": 1.0, "owl": 0.0}


def test_answers_are_read_as_the_stage_reads_them():
    votes = pd.DataFrame(
        [("t1", "a", "cat", "Yes"), ("t1", "b", "cat", " NO "), ("t1", "c", "dog", "")],
        columns=["task", "worker", "label", "response"],
    )
    plain = votes.assign(response=["yes", "no", None])
    assert DawidSkene().fit(votes).posterior_ == DawidSkene().fit(plain).posterior_


def test_bad_votes_are_left_out_with_reasons_where_asked():
    bad = pd.DataFrame(
        [("t1", "ann", "cow", None), (None, "bob", "cat", None), ("t9", "cid", "dog", "perhaps")],
        columns=["task", "worker", "label", "response"],
    )
    mixed = pd.concat([bad[:1], VOTES, bad[1:]], ignore_index=True)
    given = {"labels": ["cat", "dog", "owl"], "on_bad_vote": "reject"}
    model = DawidSkene(**given).fit(mixed)
    expected = DawidSkene(labels=["cat", "dog", "owl"]).fit(VOTES)
    assert model.posterior_ == expected.posterior_
    assert len(expected.rejects_) == 0
    assert model.rejects_[["row", "task", "reason"]].to_dict("list") == {
        "row": [1, 8, 9],
        "task": ["t1", None, "t9"],
        "reason": ["label_outside", "missing_image", "unknown_response"],
    }
    assert model.rejects_["detail"].to_list() == [
        "label 'cow' is not among the 3 labels",
        "task is missing",
        "response 'perhaps' is none of yes, no, unsure, none",
    ]
    with pytest.raises(InputError, match=r"row 1: label 'cow' .* or set on_bad_vote='reject'"):
        DawidSkene(labels=["cat", "dog", "owl"]).fit(mixed)
    with pytest.raises(InputError, match="there is not one vote to use"):
        DawidSkene(**given).fit(bad)


def test_the_shares_of_labels_are_told():
    priors = DawidSkene.classic(n_iter=5).fit(VOTES).priors_
    assert priors.index.to_list() == ["cat", "dog", "owl"]
    assert priors.sum() == pytest.approx(1)
    uniform = DawidSkene(class_prior="uniform").fit(VOTES).priors_
    assert uniform.to_list() == pytest.approx([1 / 3] * 3)


def test_a_spark_dataframe_is_fitted_on_spark(spark, tmp_path):
    numbered = VOTES.assign(
        task=VOTES["task"].str[1:].astype("int64"),
        label=VOTES["label"].map({"cat": 0, "dog": 1, "owl": 2}),
        timestamp=pd.Timestamp("2024-01-02", tz="UTC"),
    )
    overruled = numbered[:1].assign(label=2, timestamp=pd.Timestamp("2024-01-01", tz="UTC"))
    numbered = pd.concat([numbered, overruled, numbered[:1].assign(label=7)], ignore_index=True)
    given = {"labels": 3, "on_bad_vote": "reject"}
    here = DawidSkene(**given).fit(numbered)
    model = DawidSkene(workdir=str(tmp_path), **given).fit(numbered.assign(task=100))
    labels = model.fit_predict(spark.createDataFrame(numbered))
    pd.testing.assert_series_equal(labels, here.labels_, check_index_type=False)
    assert labels.to_dict() == {1: 0, 2: 1, 3: 2}
    assert {row["id"]: row["labels"][0] for row in model.posterior_.collect()} == labels.to_dict()
    there, expected = model.predict_proba(), here.predict_proba()
    pd.testing.assert_frame_equal(there, expected, check_index_type=False, rtol=1e-6)
    assert model.loss_history_ == pytest.approx(here.loss_history_, rel=1e-9)
    pd.testing.assert_series_equal(model.priors_, here.priors_)
    assert [row["reason"] for row in model.rejects_.orderBy("row").collect()] == [
        "duplicate",
        "label_outside",
    ]
    assert model.workers_["accuracy"].to_dict() == pytest.approx(
        here.workers_["accuracy"].to_dict()
    )


def test_every_label_that_a_worker_gives_a_task_counts_where_it_may_have_many():
    rows = [("t1", "ann", "cat"), ("t1", "ann", "dog"), ("t1", "bob", "cat"), ("t1", "bob", "dog")]
    votes = pd.DataFrame(rows, columns=["task", "worker", "label"])
    model = DawidSkene(truth="multi").fit(votes)
    assert model.posterior_["label"].to_pylist() == ["cat", "dog"]
    assert model.workers_["n_votes"].to_list() == [2, 2]


def test_lists_that_do_not_belong_together_are_refused_though_their_sums_agree():
    lists = {"labels": [["cat", "dog"], ["owl"]], "label_probs": [[0.9], [0.8, 0.1]]}
    with pytest.raises(InputError, match="as many values in every row"):
        DawidSkene().fit(VOTES, pd.DataFrame({"task": ["t1", "t2"], **lists}))
