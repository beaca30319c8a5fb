import re
from pathlib import Path

import pytest

from coyo_labeler.errors import InputError
from coyo_labeler.formats import csv_files
from coyo_labeler.formats.csv_files import read_columns


def rows(path: Path) -> int:
    return sum(table.num_rows for table in read_columns("votes", str(path), ["worker"]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("worker,note\na,x\nb,y", 2),
        ("worker,note", 0),
        ("worker,note\n", 0),
        ('worker,note\na,"x\ny"\nb,"z ""quoted"""\n', 2),
        ('worker,note\na,a 5" disc\nb,y\n', 2),
        ('worker,note\na,a 5" disc\nb,"x\ny"\nc,z\n', 3),
    ],
)
def test_quotes_that_are_closed_or_part_of_a_value(
    tmp_path: Path, text: str, expected: int
) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert rows(tmp_path / "a.csv") == expected


@pytest.mark.parametrize(("between", "named"), [(";", "';'"), ("\t", "tabs"), ("|", "'|'")])
def test_other_signs_than_commas_between_values_are_named(
    tmp_path: Path, between: str, named: str
) -> None:
    (tmp_path / "a.csv").write_text(f"worker{between}note\na{between}x\n")
    with pytest.raises(InputError, match=re.escape(f"has {named} between its values; save it")):
        rows(tmp_path / "a.csv")


def test_a_quote_that_is_left_open_in_the_first_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('worker,"note\na,fine\n')
    with pytest.raises(InputError, match="is not a readable CSV file"):
        rows(tmp_path / "a.csv")


def test_a_quote_that_is_left_open_is_named(tmp_path: Path) -> None:
    """Also in a column that nobody reads: the rows behind it would be lost without a word."""
    (tmp_path / "a.csv").write_text('worker,note\na,"so so\nb,fine\nc,good\n')
    with pytest.raises(InputError, match="column 'note' of the last row has a quote that is left"):
        rows(tmp_path / "a.csv")


def test_a_value_larger_than_what_is_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 1000)
    path = tmp_path / "a.csv"
    path.write_text("worker,note\n" + 'a,"x\ny"\n' * 1000)
    assert rows(path) == 1000  # the size of a file does not decide
    path.write_text('worker,note\na,x\nb,"' + "y" * 5000 + '"\n')
    with pytest.raises(InputError, match="has a row of more than 1,000 bytes; shorten its values"):
        rows(path)
    path.write_text('worker,note\na,"x\n' + "b,y\n" * 1000)
    with pytest.raises(InputError, match="or close the quote that is left open"):
        rows(path)
