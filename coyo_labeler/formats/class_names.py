"""Labels as people write them: the number of a class, or its name where only one class has it."""

import pyarrow as pa
import pyarrow.compute as pc

from coyo_labeler.formats.columns import Column, is_text, whole_or_null
from coyo_labeler.formats.label_spaces import LabelSpace


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
