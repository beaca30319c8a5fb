"""Spark pipeline: web images to ImageNet-21k beliefs, merged with a few human votes."""

from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coyo_labeler.dawid_skene import DawidSkene

__all__ = ["DawidSkene"]

__version__: str


def __getattr__(name: str) -> Any:
    """Import `DawidSkene`, and read `__version__`, at the first use: few need them."""
    if name == "DawidSkene":
        from coyo_labeler.dawid_skene import DawidSkene  # noqa: PLC0415

        return DawidSkene
    if name == "__version__":
        return metadata.version("coyo-labeler")
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
