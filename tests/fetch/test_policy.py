from datetime import UTC, datetime

import pytest

from coyo_labeler.fetch.policy import product_token, refused_by_tag, retry_after_seconds

REFUSED = frozenset({"noai", "noimageai", "noindex", "noimageindex", "noml"})


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ([], None),
        (["noai"], "noai"),
        (["nofollow", "NoImageAI"], "noimageai"),
        (["nofollow, noarchive"], None),
        (["nofollow, noindex"], "noindex"),
        (["none"], "noindex"),
        (["googlebot: noindex"], None),
        (["test-bot: noindex"], "noindex"),
        (["otherbot: noindex, nofollow", "noml"], "noml"),
        (["otherbot: nofollow, test-bot: noai"], "noai"),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noai"], "noai"),
        (["max-image-preview: large"], None),
        (["", " , ,"], None),
    ],
)
def test_x_robots_tag_is_read_for_all_and_for_us(headers, rule):
    assert refused_by_tag(headers, "test-bot", REFUSED) == rule


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 7 ", 7),
        ("0", 0),
        ("-5", None),
        ("soon", None),
        ("Fri, 31 Dec 2027 23:59:59 GMT", 59),
        ("Fri, 31 Dec 2027 23:00:00 GMT", 0),
        ("9" * 400, 999_999_999),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    now = datetime(2027, 12, 31, 23, 59, 0, tzinfo=UTC)
    assert retry_after_seconds(header, now) == seconds


def test_the_product_token_is_what_site_owners_write():
    assert product_token("Example-Bot/1.0 (+https://example.org/bot)") == "example-bot"
    assert product_token("example (me@example.org)") == "example"
