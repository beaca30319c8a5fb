"""Values from YAML, bounded: nothing nested without end, nothing that unfolds to gigabytes."""

from collections import Counter
from typing import Any

import yaml

#: Settings are a few dozen values; more are a mistake, or made to harm.
_MAX_VALUES, _MAX_DEPTH = 10_000, 40

#: Characters of a number: a long one takes minutes (`1:1:1…` is a number to the base of 60).
_MAX_DIGITS = 100
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}

#: What PyYAML's constructors raise for a value that only looks like a date or a number.
_NO_VALUE = (ValueError, KeyError, AttributeError, TypeError, OverflowError)


class UnboundedError(Exception):
    """YAML is nested too deeply, refers to itself, or unfolds to too much."""


def load_yaml(text: str) -> Any:
    """The value of a YAML text, with its numbers, dates and truth values.

    Raises: yaml.YAMLError where it is none, UnboundedError where it is too large.
    """
    return _load(text, yaml.SafeLoader)


def load_texts(text: str) -> Any:
    """The same lists and mappings with every value as it is written. Raises: as `load_yaml`."""
    return _load(text, yaml.BaseLoader)


def _load(text: str, kind: type[yaml.SafeLoader | yaml.BaseLoader]) -> Any:
    loader = kind(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_size(node)
        return loader.construct_document(node)
    except RecursionError:
        raise UnboundedError("it is nested too deeply") from None
    except _NO_VALUE as error:
        raise yaml.YAMLError(f"a value cannot be read ({error}); quote it") from None
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Count the values with every alias unfolded, and the digits of numbers; look at the keys.

    Raises: UnboundedError beyond the bounds, yaml.YAMLError for a key that is there twice.
    """
    todo = [(root, 0)]
    count = 0
    while todo:
        node, depth = todo.pop()
        count += 1
        if depth > _MAX_DEPTH:
            raise UnboundedError(f"it is nested more than {_MAX_DEPTH} deep, or refers to itself")
        if count > _MAX_VALUES:
            raise UnboundedError(f"it unfolds to more than {_MAX_VALUES:,} values")
        if node.tag in _NUMBERS and len(node.value) > _MAX_DIGITS:
            raise UnboundedError(f"it holds a number of {len(node.value):,} characters")
        if isinstance(node, yaml.MappingNode):
            _refuse_twins(node)
            todo += [(inner, depth + 1) for pair in node.value for inner in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += [(inner, depth + 1) for inner in node.value]


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Raises: yaml.YAMLError for a key that is there twice, of which PyYAML takes the last."""
    keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
    if twins := [key for key, times in keys.items() if times > 1]:
        raise yaml.YAMLError(f"the key '{twins[0]}' is there twice; remove one")
