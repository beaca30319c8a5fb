"""Times as tools write them, as microseconds since 1970 in UTC."""

import re
from datetime import UTC, datetime, timedelta, timezone

#: The time zones of MTurk's results.
_ZONES = {"PST": -8, "PDT": -7, "UTC": 0, "GMT": 0}

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

#: `Tue Nov 24 10:05:09 PST 2026`. Month names are English on every machine.
_MTURK = re.compile(
    rf"[A-Z][a-z]{{2}} ({'|'.join(_MONTHS)}) +(\d{{1,2}}) (\d\d):(\d\d):(\d\d)"
    rf" ({'|'.join(_ZONES)}) (\d{{4}})"
)
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
#: Seconds since 1970 up to the year 2200: no answer was given later, nor before 1970.
_LATEST = 7_258_118_400


def parse_time(value: object) -> int | None:
    """Microseconds since 1970; None where there is no value.

    value: an ISO 8601 text (UTC where it names no zone), MTurk's form, or seconds since 1970.

    Raises: ValueError where it is none of these.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return _microseconds(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _of_seconds(value)
    if not isinstance(value, str) or len(value) > 100:
        raise ValueError("the time is neither a number nor a text of at most 100 characters")
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _of_seconds(float(text))
    match = _MTURK.fullmatch(text)
    if match is None:
        return _microseconds(_iso(text))
    month, day, hour, minute, second, zone, year = match.groups()
    moment = datetime(
        int(year),
        _MONTHS.index(month) + 1,
        int(day),
        int(hour),
        int(minute),
        int(second),
        tzinfo=timezone(timedelta(hours=_ZONES[zone])),
    )
    return _microseconds(moment)


def _iso(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is no time in ISO 8601, such as 2026-11-24T10:05:09Z") from None


def _of_seconds(seconds: float) -> int:
    if not 0 <= seconds < _LATEST:
        raise ValueError(f"{seconds} is no number of seconds since 1970")
    return round(seconds * 1_000_000)


def _microseconds(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    microseconds = (moment - _EPOCH) // _MICROSECOND
    if not 0 <= microseconds < _LATEST * 1_000_000:
        raise ValueError(f"{moment} is no time at which an answer can have been given")
    return microseconds


def seconds_of(value: object) -> float | None:
    """A duration in seconds; None where there is none that a person can have taken."""
    if isinstance(value, str):
        value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value < _LATEST else None
