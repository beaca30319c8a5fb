"""The packages that only some users need: which extra installs each, and the error without one.

Wherever such a package is imported, its absence is a `MissingPackageError` with the command that
installs it: on the command line by `cli`, elsewhere by `needed`.
"""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from types import ModuleType

import pyarrow as pa

from coyo_labeler.errors import InputError, one_line

#: The extras of pyproject.toml that install each module, the smallest first.
EXTRAS_OF = {
    "PIL": ("teacher", "spark", "ask", "compare"),
    "adlfs": ("azure",),
    "aiohttp": ("spark",),
    "crc32c": ("spark",),
    "cv2": ("teacher",),
    "defusedxml": ("ask",),
    "gcsfs": ("gcs",),
    "hotcoco": ("compare",),
    "imagehash": ("spark",),
    "jinja2": ("simulate", "spark", "compare"),
    "krippendorff": ("em", "spark"),
    "markupsafe": ("simulate", "spark", "compare"),
    "msgspec": ("compare",),
    "numba": ("em", "spark"),
    "pandas": ("em", "spark"),
    "protego": ("spark",),
    "py4j": ("spark",),
    "pyspark": ("spark",),
    "s3fs": ("s3",),
    "safetensors": ("learn", "teacher"),
    "scipy": ("em", "simulate", "learn", "spark"),
    "sklearn": ("demo",),
    "tensorboard": ("train",),
    "timm": ("teacher", "train"),
    "threadpoolctl": ("simulate", "learn"),
    "torch": ("learn", "teacher", "train"),
    "torchvision": ("teacher", "train"),
    "urllib3": ("ask",),
    "yarl": ("spark",),
}

#: Extras that install what others do.
_INCLUDES = {"demo": {"teacher", "spark"}, "train": {"teacher"}}

#: What `pip install` calls a module, where the names differ.
_DISTRIBUTIONS = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "py4j": "pyspark",
    "sklearn": "scikit-learn",
}


class MissingPackageError(InputError, ImportError):
    """A package that an extra installs is missing, or cannot be imported."""


def is_installed(*modules: str) -> bool:
    """Whether all the modules could be imported, without importing them."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def require(who: str, *modules: str, extra: str = "") -> None:
    """Check that modules are installed, without importing them.

    who: the stage or class that needs them, for the message. extra: see `remedy`.

    Raises: MissingPackageError naming all that are missing.
    """
    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise MissingPackageError(_message(who, missing, remedy(missing[0], extra)))


@contextmanager
def needed(who: str, extra: str = "") -> Iterator[None]:
    """Turn an ImportError of a package that is not ours into a MissingPackageError.

    who, extra: as in `require`.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        module = (error.name or "").partition(".")[0]
        if module == "coyo_labeler":
            raise  # a fault of ours
        raise _explain(error, module, who, extra) from error


class _NoPandas(MetaPathFinder):
    """Finds no pandas."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> None:
        """Raises: ModuleNotFoundError for pandas."""
        if name == "pandas":
            raise ModuleNotFoundError("not needed", name=name)


def do_without_pandas() -> None:
    """Keep PyArrow from importing pandas; for a process that has no tables of pandas.

    At its first conversion PyArrow looks for pandas, to know its tables from other objects, and
    imports it: a tenth of the time of a small merge. Whoever asks it for a table of pandas later
    still gets one.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        pa.scalar(0)
    finally:
        sys.meta_path.remove(finder)


def remedy(module: str, extra: str = "") -> str:
    """The command that installs a module.

    extra: the one that is asked for if it installs the module, or if no extra is known to.
    """
    extras = EXTRAS_OF.get(module, (extra,))
    installs = {extra, *_INCLUDES.get(extra, ())}
    chosen = extra if installs.intersection(extras) else extras[0]
    return f"pip install 'coyo-labeler[{chosen}]'" if chosen else f"pip install {module}"


def distribution_of(module: str) -> str:
    """What `pip install` calls a module."""
    return _DISTRIBUTIONS.get(module, module)


def _explain(error: ImportError, module: str, who: str, extra: str) -> MissingPackageError:
    if isinstance(error, ModuleNotFoundError):
        return MissingPackageError(_message(who, [module], remedy(module, extra)))
    # An outdated version, or a shared library that the machine has not got.
    command = remedy(module, extra).replace("pip install", "pip install --upgrade")
    what = distribution_of(module) or "a package"
    return MissingPackageError(
        f"{who}: {what} cannot be imported ({one_line(error)}); install what it lacks, or another "
        f"version: {command}"
    )


def _message(who: str, modules: list[str], command: str) -> str:
    names = list(dict.fromkeys(distribution_of(module) for module in modules))
    are = "is" if len(names) == 1 else "are"
    return f"{who}: {' and '.join(names)} {are} not installed: {command}"
