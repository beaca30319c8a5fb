"""The dataset card of a Hugging Face folder: YAML front matter and a page of Markdown."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from coyo_labeler.config.export import ExportSettings
from coyo_labeler.export import markdown
from coyo_labeler.export.provenance import Provenance
from coyo_labeler.export.statistics import QUANTILES, Statistics
from coyo_labeler.formats.label_spaces import LabelSpace

#: The Hub's size categories: (rows below which it applies, its name).
_SIZES = [
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
    (10**9, "100M<n<1B"),
    (10**10, "1B<n<10B"),
    (10**11, "10B<n<100B"),
    (10**12, "100B<n<1T"),
]

_MEANINGS = {
    "id": "identifier of the image in the source",
    "url": "where the image was found",
    "imagehash": "perceptual hash (pHash) of the image, 16 hexadecimal digits",
    "labels": "classes by falling probability, as indices of the label space",
    "label_probs": "probabilities of the labels, in the same order",
    "width": "width of the original image, in pixels",
    "height": "height of the original image, in pixels",
    "n_votes": "number of human votes on the image",
    "risk": "1 − the highest probability, before any label was left out",
    "entropy": "entropy of the probabilities before any label was left out, in nats",
}


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    return next((name for limit, name in _SIZES if rows < limit), "n>1T")


def front_matter(
    settings: ExportSettings, schema: pa.Schema, sizes: Mapping[str, int], voted: bool
) -> dict[str, Any]:
    """The card's metadata.

    sizes: `rows`, `bytes` (of the files) and `nbytes` (in memory). voted: whether any label rests
    on human votes.
    """
    single = settings.max_labels == 1
    split = {"name": "train", "num_bytes": sizes["nbytes"], "num_examples": sizes["rows"]}
    return {
        "annotations_creators": ["machine-generated", *(["crowdsourced"] if voted else [])],
        "language": list(settings.card.language),
        "language_creators": ["other"],
        "license": settings.card.license,
        "multilinguality": ["monolingual" if len(settings.card.language) == 1 else "multilingual"],
        "pretty_name": settings.card.pretty_name,
        "size_categories": [size_category(sizes["rows"])],
        "tags": ["image-labeled pairs"],
        "task_categories": ["image-classification"],
        "task_ids": [f"multi-{'class' if single else 'label'}-image-classification"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": "train", "path": "data/train-*.parquet"}],
            }
        ],
        "dataset_info": {
            "features": [_feature(field) for field in schema],
            "splits": [split],
            "download_size": sizes["bytes"],
            "dataset_size": sizes["nbytes"],
        },
    }


def _feature(field: pa.Field) -> dict[str, str]:
    if pa.types.is_list(field.type):
        # `datasets` writes "list" since version 4; all versions read "sequence".
        return {"name": field.name, "sequence": _dtype(field.type.value_type)}
    return {"name": field.name, "dtype": _dtype(field.type)}


def _dtype(kind: pa.DataType) -> str:
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def render_card(
    settings: ExportSettings,
    schema: pa.Schema,
    sizes: Mapping[str, int],
    statistics: Statistics,
    provenance: Provenance,
    rejected: Mapping[str, int],
    space: LabelSpace,
) -> str:
    """README.md: front matter, fields, statistics, provenance, limits.

    sizes: as for `front_matter`. rejected: rows left out, by reason. Everything that comes from a
    file is escaped: it may be a stranger's.
    """
    merged = provenance.merged()
    votes = merged["votes"] if merged else None
    voted = bool(votes and votes["out"]) or bool(statistics.voted and statistics.voted[1])
    environment = Environment(
        loader=PackageLoader("coyo_labeler.export", "."),
        autoescape=False,  # would escape for HTML; the filters escape for Markdown and HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": markdown.count,
        "percent": lambda value: f"{value * 100:.2f} %",
        "significant": markdown.significant,
        "text": markdown.text,
        "uri": markdown.uri,
    }
    matter = yaml.safe_dump(
        front_matter(settings, schema, sizes, voted), sort_keys=False, allow_unicode=True
    )
    page = environment.get_template("card.md.jinja").render(
        matter=matter.rstrip(),
        settings=settings,
        fields=[(field.name, _kind(field), _MEANINGS[field.name]) for field in schema],
        sizes=sizes,
        statistics=statistics,
        quantiles=list(zip(QUANTILES, statistics.first, strict=False)),
        classes=[
            (space.display_name(label), label, listed, first)
            for label, listed, first in statistics.classes
        ],
        provenance=provenance,
        merged=merged,
        rejected=rejected,
        space=space.name,
        size=space.size,
    )
    return page


def _kind(field: pa.Field) -> str:
    kind = field.type
    return f"list of {_dtype(kind.value_type)}" if pa.types.is_list(kind) else _dtype(kind)
