"""Names of the source's columns between reading and writing."""

_PREFIX = "source_"

#: The columns that every source has, whatever their names are there.
_OWN = frozenset({"id", "url", "imagehash", "width", "height"})


def inside(name: str) -> str:
    """The name inside the stage of a source column that is kept or has a threshold.

    It equals none of the stage's own names (position, bits, reason, …), and consists of letters,
    digits and underscores: PySpark's `mapInArrow` reads a dot in a name as a field of a struct.
    """
    return name if name in _OWN else _PREFIX + name.encode().hex()


def outside(name: str) -> str:
    """The reverse of `inside`."""
    return name if name in _OWN else bytes.fromhex(name.removeprefix(_PREFIX)).decode()


def quoted(name: str) -> str:
    """A source column's name quoted for `F.col`: it may hold dots and backticks."""
    escaped = name.replace("`", "``")
    return f"`{escaped}`"
