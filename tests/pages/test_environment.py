"""The filters of the pages."""

import pytest

from coyo_labeler.pages.environment import open_environment


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("dog", "dog"),
        ("lamp (n03636649)", "lamp (n03636649)"),
        ("table lamp, desk lamp, bedside lamp", "table lamp, desk lamp…"),
        ("crane, any of several large wading birds (n02012849)", "crane… (n02012849)"),
        ("the quick brown fox jumps over it (17)", "the quick brown fox jumps ove… (17)"),
        ("<b>a name with markup in it, and more</b>", "&lt;b&gt;a name with markup in it…"),
    ],
)
def test_long_names_are_cut_and_keep_what_tells_them_apart(name: str, shown: str) -> None:
    template = open_environment("coyo_labeler.compare").from_string("{{ name|short }}")
    text = template.render(name=name)
    assert text == shown or text.endswith(f">{shown}</span>")
    assert "<b>" not in text


def test_differences_have_a_sign_and_zero_has_none() -> None:
    template = open_environment("coyo_labeler.compare").from_string("{{ n|change }}")
    assert [template.render(n=n) for n in (1200, -3, 0)] == ["+1,200", "−3", "0"]
