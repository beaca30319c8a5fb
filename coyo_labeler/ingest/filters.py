"""The rules for a single row: the first rule that a row breaks is its reason of rejection."""

from dataclasses import dataclass
from functools import reduce
from operator import and_

from pyspark.sql import Column
from pyspark.sql import functions as F

from coyo_labeler.config.ingest import IngestSettings, Threshold
from coyo_labeler.ingest.columns import inside
from coyo_labeler.ingest.reasons import Reason

#: http or https, then a host; the HTTP client checks the rest of a URL.
URL_PATTERN = r"^(?i:https?)://[^/?#\s]+"

#: The range of the catalog's int32.
_SIDES = (-(2**31), 2**31 - 1)

#: Bytes; servers and proxies refuse longer ones.
URL_LENGTH = 2083


@dataclass(frozen=True)
class Rule:
    """A condition on a row; null counts as false. detail: the value at fault, never null."""

    reason: str
    passes: Column
    detail: Column


def rules(settings: IngestSettings) -> list[Rule]:
    """The rules in order; a row is rejected for the first one that it breaks."""
    url, text = F.col("url"), F.col("imagehash")
    checks = [
        Rule(Reason.MISSING_ID, F.col("id").isNotNull(), F.lit("none")),
        Rule(
            Reason.BAD_URL,
            (F.octet_length(url) <= URL_LENGTH) & _is_web(url),
            F.coalesce(
                F.when(F.octet_length(url) > URL_LENGTH, F.lit(f"longer than {URL_LENGTH} bytes")),
                F.when(url.isNotNull(), F.lit("not http:// or https:// and a host")),
                F.lit("none"),
            ),
        ),
        Rule(Reason.BAD_HASH, is_hash(text), F.coalesce(text, F.lit("none"))),
    ]
    width, height = F.col("width"), F.col("height")
    sides = F.concat(_text(width), F.lit(" × "), _text(height))
    can_hold = _fits(width) & _fits(height)
    checks.append(Rule(Reason.BAD_SIZE, can_hold, sides))
    if settings.min_side:
        large = (width >= settings.min_side) & (height >= settings.min_side)
        checks.append(Rule(Reason.TOO_SMALL, large, sides))
    if settings.max_aspect_ratio is not None:
        slim = F.greatest(width, height) <= F.least(width, height) * settings.max_aspect_ratio
        checks.append(Rule(Reason.ASPECT_RATIO, slim, sides))
    checks += [_bounds(name, threshold) for name, threshold in settings.thresholds.items()]
    return checks


def passes(settings: IngestSettings) -> Column:
    """Whether a row breaks no rule; null counts as false.

    Where possible it is a conjunction of plain comparisons, which Spark pushes down to Parquet's
    reader: row groups without any such row are not read.
    """
    return reduce(and_, (rule.passes for rule in rules(settings)))


def reason(settings: IngestSettings) -> Column:
    """The reason of rejection: that of the first rule that a row breaks, or null."""
    return F.coalesce(*(F.when(_broken(rule), F.lit(str(rule.reason))) for rule in rules(settings)))


def detail(settings: IngestSettings) -> Column:
    """The value at fault under the first rule that a row breaks; null where it breaks none."""
    return F.coalesce(*(F.when(_broken(rule), rule.detail) for rule in rules(settings)))


def is_hash(text: Column) -> Column:
    """Whether a string is 1 to 16 hexadecimal digits, spaces around it aside; null for null."""
    digits = F.trim(text)
    # unhex returns null for any other character; a regular expression takes twice as long.
    return F.length(digits).between(1, 16) & F.unhex(digits).isNotNull()


def to_signed(text: Column) -> Column:
    """The 64 bits of a hash as a bigint; the first bit becomes the sign.

    The target base −10 asks conv for a signed number: with 10 every hash whose first bit is set,
    which is every hash of a natural image, is above the largest bigint.
    """
    return F.conv(F.trim(text), 16, -10).cast("bigint")


def _is_web(url: Column) -> Column:
    """Whether a URL matches `URL_PATTERN`; most that do are recognised without the costly match."""
    no_host = ("", "/", "?", "#", " ", "\t", "\n", "\x0b", "\f", "\r")
    return (
        (url.startswith("https://") & ~F.substring(url, 9, 1).isin(*no_host))
        | (url.startswith("http://") & ~F.substring(url, 8, 1).isin(*no_host))
        | url.rlike(URL_PATTERN)
    )


def _bounds(name: str, threshold: Threshold) -> Rule:
    value = F.col(inside(name))
    within = value.isNotNull()
    if threshold.min is not None:
        within = within & (value >= threshold.min)
    if threshold.max is not None:
        within = within & (value <= threshold.max)
    # Spark orders NaN above every number, so it would pass a lower bound.
    within = within & ~F.isnan(value.cast("double"))
    return Rule(name, within, _text(value))


def _fits(side: Column) -> Column:
    return side.isNull() | side.between(*_SIDES)


def _broken(rule: Rule) -> Column:
    return ~F.coalesce(rule.passes, F.lit(False))


def _text(value: Column) -> Column:
    return F.coalesce(value.cast("string"), F.lit("none"))
