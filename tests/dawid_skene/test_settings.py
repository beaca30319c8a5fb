"""The parameters of the estimator are the stage's keys, and nothing else enters a fit."""

import inspect

import numpy as np
import pandas as pd
import pytest

from coyo_labeler import DawidSkene
from coyo_labeler.config import read
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.dawid_skene.settings import PARAMETERS, merge_settings

VOTES = pd.DataFrame(
    [("t1", "ann", 0), ("t1", "bob", 1), ("t2", "ann", 1), ("t2", "cid", 1), ("t3", "bob", 0)],
    columns=["task", "worker", "label"],
)
TABLES = {"votes": "votes", "output": "output"}

#: Parameters that are no keys of the stage: tables in a notebook have no paths.
OWN = {"labels", "workdir"}


def parameters():
    return dict(inspect.signature(DawidSkene).parameters)


def test_every_parameter_is_a_key_of_the_stage_with_its_default():
    keys = {name: key for key, name in PARAMETERS.items()}
    for name, parameter in parameters().items():
        if name not in OWN:
            field = MergeSettings.model_fields[keys.get(name, name)]
            assert parameter.default == field.default, name


def test_every_parameter_is_kept_under_its_name():
    values = {name: object() for name in parameters()}
    estimator = DawidSkene(**values)
    assert {name: getattr(estimator, name) for name in values} == values


def test_every_parameter_reaches_the_settings():
    given = {
        "n_iter": 7, "tol": 0.5, "worker_model": "one_coin", "truth": "multi",
        "beliefs_are": "categorical", "calibration": (2.0, 0.5), "pooling": "none",
        "counts": "hard", "prior_strength": 1.5, "pooling_strength": 2.5, "prior_accuracy": 0.6,
        "prior_floor": 0.01, "class_prior": "uniform", "support": "all", "support_mass": 0.5,
        "duplicate_votes": "first", "on_bad_vote": "reject", "min_calibration_votes": 3,
        "start": "skills",
    }  # fmt: skip
    assert given.keys() == parameters().keys() - OWN
    settings = merge_settings(DawidSkene(**given), **TABLES)
    keys = {name: key for key, name in PARAMETERS.items()}
    expected = {keys.get(name, name): value for name, value in given.items()}
    expected["calibration"] = "2.0,0.5"
    assert {key: getattr(settings, key) for key in expected} == expected


def test_numbers_may_be_numpys():
    given = {"n_iter": np.int64(3), "prior_strength": np.float32(2), "calibration": np.float64(2)}
    settings = merge_settings(DawidSkene(**given), **TABLES)
    assert settings.max_iterations == 3
    assert settings.prior_strength == 2.0
    assert settings.calibration == "2.0"


@pytest.fixture
def other_defaults(tmp_path, monkeypatch):
    """A conf/merge.yaml in which all is different, in the checkout and in the current folder."""
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "merge.yaml").write_text(
        "worker_model: perfect\nprior_strength: 1000\nmax_iterations: 1\ncriterion: hard\n"
        "tolerance: 1\nprior_accuracy: 0.5\ncounts: hard\nclass_prior: uniform\nseed: 5\n"
    )
    monkeypatch.setattr(read, "CONF", folder)
    monkeypatch.chdir(tmp_path)
    assert read.default_config("merge") == str(folder / "merge.yaml")


def test_a_fit_does_not_depend_on_the_yaml_file_of_the_stage(request):
    expected = DawidSkene().fit(VOTES)
    settings = merge_settings(DawidSkene(), **TABLES)
    request.getfixturevalue("other_defaults")
    assert merge_settings(DawidSkene(), **TABLES) == settings == MergeSettings(**TABLES)
    model = DawidSkene().fit(VOTES)
    assert model.posterior_.equals(expected.posterior_)
    assert model.loss_history_ == expected.loss_history_
    pd.testing.assert_frame_equal(model.workers_, expected.workers_)
