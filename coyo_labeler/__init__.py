"""Spark pipeline: web images to ImageNet-21k beliefs, merged with a few human votes."""

import os
from typing import TYPE_CHECKING, Any

# Arrow's bundled mimalloc has crashed where threads come and go (apache/arrow#50471; once more with
# pyarrow 26), as they do in fetch and label. Arrow reads this when it is loaded.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")

if TYPE_CHECKING:
    from coyo_labeler.merge.api import DawidSkene

__all__ = ["DawidSkene"]


def __getattr__(name: str) -> Any:
    """Import `DawidSkene` when it is asked for: most users of the package do without pandas."""
    if name == "DawidSkene":
        from coyo_labeler.merge.api import DawidSkene  # noqa: PLC0415

        return DawidSkene
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
