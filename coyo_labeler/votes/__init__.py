"""Votes of people: read, checked, and one answer per worker and question.

- `read`: Parquet and CSV files, split by split.
- `candidates`: sets of classes that a vote is about, as lists or text.
- `nodes`: votes about a node of the label tree, which speak for all classes at or below it.
- `checks`: which votes can be used, and what is wrong with the others.
- `questions`: which vote counts where a worker has several on one question.
"""
