"""Labels as people write them: the number of a class, or its name where only one class has it."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.errors import InputError, one_line
from coyo_labeler.formats.columns import Column, cast_column, is_text, whole_or_null
from coyo_labeler.formats.label_spaces import LabelSpace

#: Columns that hold classes, by number or by name.
CLASSES = ("label",)


def classes_or_null(labels: Column, space: LabelSpace) -> pa.Array:
    """The class of each label as int64; null where it is missing, or neither number nor name.

    A whole number is a class, even one outside the space. A text is then looked up among the names
    and synsets of the space, without the blanks around it; a name of several classes is null.
    """
    number = whole_or_null(labels)
    if not is_text(labels.type) or number.null_count == 0:
        return number
    if isinstance(labels, pa.ChunkedArray):
        labels = labels.combine_chunks()
    other = pc.if_else(number.is_null(), labels.cast(pa.string()), None).dictionary_encode()
    classes = [_only(space.find((name or "").strip())) for name in other.dictionary.to_pylist()]
    return pc.coalesce(number, pa.array(classes, pa.int64()).take(other.indices))


def _only(classes: tuple[int, ...]) -> int | None:
    return classes[0] if len(classes) == 1 else None


def why_no_class(label: object, space: LabelSpace) -> str:
    """Why a label is null in `classes_or_null`, in words that begin with the label."""
    classes = space.find(label.strip()) if isinstance(label, str) else ()
    if classes:
        numbers = " and ".join(map(str, classes[:3])) + (" and more" if len(classes) > 3 else "")
        return f"'{label}' is the name of several classes of {space.name} ({numbers})"
    why = f"'{label}' is not an integer and not the name of a class of {space.describe()}"
    if space.names is not None:
        return why
    return f"{why}, which has no names"


def in_schema(
    tables: Iterable[pa.Table], schema: pa.Schema, source: str, first_row: int, space: LabelSpace
) -> Iterator[pa.Table]:
    """Tables in the types of `schema`, names of classes as their numbers; nulls stay.

    A column that a table lacks is null. source: setting and file, first_row: rows of the file
    before the first table, for messages.

    Raises: InputError naming a value that cannot be cast, or that is no class of the label space.
    """
    row = first_row
    for table in tables:
        columns = []
        for field in schema:
            if field.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, field.type))
                continue
            where, column = f"{source}: column '{field.name}'", table[field.name]
            if field.name in CLASSES and is_text(column.type):
                column = _classes(column, space, where, row)
            columns.append(cast_column(column, field.type, where, row))
        yield pa.table(columns, schema=schema)
        row += table.num_rows


def _classes(labels: Column, space: LabelSpace, where: str, first_row: int) -> pa.Array:
    """The class of each label. Raises: InputError naming the first that is none."""
    classes = classes_or_null(labels, space)
    if classes.null_count > labels.null_count:
        unknown = (classes.is_null().to_numpy(False) & labels.is_valid().to_numpy()).argmax()
        label = one_line(labels[int(unknown)].as_py())
        raise InputError(
            f"{where} in row {first_row + int(unknown) + 1}: {why_no_class(label, space)}; give "
            "the number of the class, or drop that row"
        )
    return classes
