"""`DawidSkene`: the model of `merge` as an estimator for notebooks, in scikit-learn's shape.

estimator: the class, its parameters and what it can be asked after `fit`. settings: its parameters
as `MergeSettings`. votes: which rows of a table are usable votes. columns: those of pandas and
Arrow tables, in types that can be compared. tables: these columns as arrays of numbers. local: the
fit in this process. on_spark: the fit of Spark DataFrames, by the stage `merge`. results: what
either fit returns.
"""

from coyo_labeler.dawid_skene.estimator import DawidSkene

__all__ = ["DawidSkene"]
