"""What the source's columns are called between reading and writing."""

_PREFIX = "source_"

#: What every source has, whatever it is called there.
_OWN = frozenset({"id", "url", "imagehash", "width", "height"})


def inside(name: str) -> str:
    """What a column that is kept or has a threshold is called while it is worked on.

    None of our own names (place, bits, reason, …), and of letters and digits: PySpark's
    `mapInArrow` takes a dot in a name for a field of a struct.
    """
    return name if name in _OWN else _PREFIX + name.encode().hex()


def outside(name: str) -> str:
    """The reverse of `inside`."""
    return name if name in _OWN else bytes.fromhex(name.removeprefix(_PREFIX)).decode()


def quoted(name: str) -> str:
    """A name of the source as `F.col` takes it, whatever dots and backticks it holds."""
    escaped = name.replace("`", "``")
    return f"`{escaped}`"
