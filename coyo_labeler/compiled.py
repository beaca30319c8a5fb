"""Functions compiled by numba."""

from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F")


def compiled(function: F) -> F:
    """Compile once per machine, or once per process where no folder can keep the code.

    The compiled function releases the interpreter's lock, so that threads run it side by side.
    """
    options: Any = {"nogil": True, "error_model": "numpy"}
    try:
        return cast(F, njit(cache=True, **options)(cast(Any, function)))
    except RuntimeError:
        return cast(F, njit(**options)(cast(Any, function)))
