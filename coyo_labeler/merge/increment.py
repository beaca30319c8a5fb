"""Votes that come later, added to what an earlier merge found without going through it all again.

What that merge found of an image is the belief that its new votes meet, and what it counted of a
worker stands as it is; the expected counts of the new votes are added. So the E-step is that of the
images with new votes alone, which incremental EM allows (Neal & Hinton 1998); the other images keep
their posterior, as if their votes had been seen with the skills of then for good.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coyo_labeler import storage
from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.em.priors import LEAST_POSTERIOR
from coyo_labeler.em.tallies import COLUMNS, COMPARED
from coyo_labeler.errors import InputError
from coyo_labeler.formats import schemas
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space
from coyo_labeler.formats.parquet_splits import Split, plan_splits
from coyo_labeler.merge.earlier import read_tables

TALLY_FOLDER = "tally"


def tally_table(names: Sequence[str], tally: NDArray[np.int64]) -> pa.Table:
    """The tally (J, 5) as schemas.TALLY."""
    return pa.table([pa.array(names, pa.string()), *tally.T], schema=schemas.TALLY)


def as_increment(settings: MergeSettings, space: LabelSpace) -> MergeSettings:
    """The settings under which new votes meet the earlier posterior.

    Raises: InputError where the earlier merge was one of another kind.
    """
    url = settings.warm_start
    assert url is not None
    manifest: Any = storage.read_json(storage.join(url, "_manifest.json")) or {}
    before = manifest.get("config", {})
    if before.get("truth") != "single":
        raise InputError(f"incremental: {url} was made with truth=multi; merge all votes together")
    if load_label_space(before["label_space"]) != space:
        raise InputError(
            f"incremental: {url} was made in the label space {before['label_space']}; set "
            f"label_space={before['label_space']}"
        )
    posterior = storage.join(url, "posterior")
    found = {
        "beliefs": posterior,
        "calibration": "none",
        # What the earlier merge left to classes that it does not list is known: nothing is added
        # to that, and nothing that it lists is lumped.
        "prior_floor": LEAST_POSTERIOR,
        "support_mass": 1.0,
    }
    return settings.model_copy(update=found)


def plan_posterior(url: str) -> list[Split]:
    """The splits of the earlier posterior: whole files, for those without new votes are copied.

    They are named anew, for new rows go by the earlier names.
    """
    splits = plan_splits("warm_start", url, schemas.POSTERIOR, sys.maxsize)
    return [replace(split, name=f"kept-{n:05d}") for n, split in enumerate(splits)]


def workers_with_earlier(url: str, names: Sequence[str]) -> list[str]:
    """The workers of both merges, sorted."""
    return sorted({*names, *_earlier_tally(url)["worker_id"].to_pylist()})


def add_tally(url: str, names: Sequence[str], tally: NDArray[np.int64]) -> NDArray[np.int64]:
    """The votes of both merges by worker, (J, 5).

    Agreement is with the machine, so that of the new votes, with the earlier posterior, is no part.
    """
    earlier = _earlier_tally(url)
    place = np.searchsorted(names, earlier["worker_id"].to_pylist())
    added = tally.copy()
    added[:, COMPARED:] = 0
    added[place] += np.stack([earlier[name].to_numpy() for name in COLUMNS], axis=1)
    return added


def _earlier_tally(url: str) -> pa.Table:
    found = list(read_tables(storage.join(url, TALLY_FOLDER), schemas.TALLY))
    if not found:
        raise InputError(
            f"incremental: {url} has no {TALLY_FOLDER}/; merge all votes once more, anew"
        )
    return pa.concat_tables(found)
