"""`DawidSkene` in a notebook."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.errors import InputError

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
        (VOTES.drop(columns="worker"), "votes: no column 'worker' .its columns: task, label."),
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


def test_a_spark_dataframe_is_fitted_on_spark(spark, tmp_path):
    numbered = VOTES.assign(
        task=VOTES["task"].str[1:].astype("int64"),
        label=VOTES["label"].map({"cat": 0, "dog": 1, "owl": 2}),
    )
    model = DawidSkene(labels=3, workdir=str(tmp_path))
    model.fit(spark.createDataFrame(numbered))
    found = {row["id"]: row["labels"][0] for row in model.posterior_.collect()}
    assert found == {1: 0, 2: 1, 3: 2}
    here = DawidSkene(labels=3).fit(numbered)
    assert model.loss_history_ == pytest.approx(here.loss_history_, rel=1e-9)
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
