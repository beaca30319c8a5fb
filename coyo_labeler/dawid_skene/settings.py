"""The parameters of `DawidSkene` as settings of the stage `merge`, checked by the same code."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from coyo_labeler.config.merge import MergeSettings
from coyo_labeler.config.read import check_settings

if TYPE_CHECKING:
    from coyo_labeler.dawid_skene.estimator import DawidSkene

#: What the estimator calls two keys of the stage, after crowd-kit. The others keep their names.
PARAMETERS = {"max_iterations": "n_iter", "tolerance": "tol"}


def merge_settings(estimator: DawidSkene, **tables: Any) -> MergeSettings:
    """The settings of the stage that correspond to the estimator's parameters.

    tables: values of further keys, such as votes and output. All other keys have the defaults of
    `MergeSettings`: no YAML file is read.

    Raises: InputError naming the parameter at fault and the remedy.
    """
    parameters = inspect.signature(type(estimator)).parameters
    names = {key: PARAMETERS.get(key, key) for key in MergeSettings.model_fields}
    values = {key: getattr(estimator, name) for key, name in names.items() if name in parameters}
    return check_settings(MergeSettings, "DawidSkene", values | tables, PARAMETERS)
