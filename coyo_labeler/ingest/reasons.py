"""The reasons for which a source row does not reach the catalog."""

from enum import StrEnum


class Reason(StrEnum):
    """The fixed reasons; a row outside a threshold has the column's name as its reason."""

    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    BAD_URL = "bad_url"
    BAD_HASH = "bad_hash"
    BAD_SIZE = "bad_size"
    TOO_SMALL = "too_small"
    ASPECT_RATIO = "aspect_ratio"
    DUPLICATE_HASH = "duplicate_hash"
    NEAR_DUPLICATE = "near_duplicate"
    NOT_SAMPLED = "not_sampled"
    CORRUPT_FILE = "corrupt_file"
