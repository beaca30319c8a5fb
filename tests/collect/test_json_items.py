import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coyo_labeler.collect import json_items
from coyo_labeler.errors import InputError

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def read(text: str) -> list:
    return list(json_items.read_items(io.StringIO(text), "source: a.json"))


@given(items=st.lists(values), indent=st.sampled_from([None, 1]), block=st.integers(1, 40))
def test_items_are_those_of_the_json_module_whatever_the_block(items, indent, block):
    before, json_items._BLOCK = json_items._BLOCK, block
    try:
        assert read(json.dumps(items, indent=indent)) == items
        documents = [item for item in items if isinstance(item, dict)]
        assert read("\n".join(map(json.dumps, documents))) == documents
    finally:
        json_items._BLOCK = before


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[1, 2", "an item does not end"),
        ("[1, 2,", "Expecting value"),
        ('[{"a": 1', "Expecting"),
        ("[1] 2", "text behind the list"),
        ("[1 2]", "an item does not end in a comma"),
        ('{"a": 1}\n{"b"', "Expecting"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "integer string conversion"),
    ],
)
def test_broken_text_is_one_error(text, why):
    with pytest.raises(InputError, match=f"a.json is not readable JSON .*{why}.*; export it again"):
        read(text)


def test_bytes_that_are_no_utf8_are_one_error():
    file = io.TextIOWrapper(io.BytesIO(b'[{"a": "\xff"}]'), "utf-8")
    with pytest.raises(InputError, match="is not UTF-8"):
        list(json_items.read_items(file, "source: a.json"))
