"""Spark pipeline: web images to ImageNet-21k beliefs, merged with a few human votes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coyo_labeler.dawid_skene import DawidSkene

__all__ = ["DawidSkene"]


def __getattr__(name: str) -> Any:
    """Import `DawidSkene` at its first use: most users of the package do not need pandas."""
    if name == "DawidSkene":
        from coyo_labeler.dawid_skene import DawidSkene  # noqa: PLC0415

        return DawidSkene
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
