import pytest

from coyo_labeler.collect.times import parse_time, seconds_of

#: 2026-11-24 18:05:09 UTC, in microseconds since 1970.
MOMENT = 1_795_543_509_000_000


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T18:05:09Z",
        "2026-11-24T18:05:09",
        "2026-11-24 19:05:09.000000+01:00",
        "Tue Nov 24 10:05:09 PST 2026",
        "Tue Nov 24 11:05:09 PDT 2026",
        "1795543509",
        1795543509,
        1795543509.0,
    ],
)
def test_times_of_all_tools(text):
    assert parse_time(text) == MOMENT


@pytest.mark.parametrize("nothing", [None, ""])
def test_no_time(nothing):
    assert parse_time(nothing) is None


@pytest.mark.parametrize(
    "wrong",
    [
        "yesterday",
        "2026-13-01T00:00:00Z",
        "Tue Nov 31 10:05:09 PST 2026",
        "Tue Nov 24 10:05:09 XYZ 2026",
        float("nan"),
        10**400,
        -1,
        True,
        [],
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-11-24T18:05:09Z" * 100,
    ],
)
def test_what_is_no_time_is_an_error(wrong):
    with pytest.raises(ValueError, match=r".+"):
        parse_time(wrong)


def test_durations():
    assert [seconds_of(value) for value in (2, 2.5, "9", 0)] == [2.0, 2.5, 9.0, 0.0]
    wrong = (None, "", "x", -1, float("nan"), float("inf"), 10**400, True, [], "1e5")
    assert [seconds_of(value) for value in wrong] == [None] * len(wrong)
