"""Questions in words: what people read about the classes that they are asked about.

3,186 classes of ImageNet-21k share their first name with another, so every name comes with its
definition, or at least with its synset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from coyo_labeler.annotation_tools.questions import CHOICE, Question
from coyo_labeler.formats.label_spaces import LabelSpace

#: Answers besides the classes of a choice, with the words that are shown.
NONE, UNSURE = ("none", "none of these"), ("unsure", "I am not sure")
#: Answers to a verification, with their keys on the keyboard.
ANSWERS = (("yes", "y"), ("no", "n"), ("unsure", "u"))

#: Classes that a question lists; people do not read more.
_LISTED = 30


@dataclass(frozen=True)
class ClassText:
    """A class as people read it. name: its first name. more: further names. definition: or ""."""

    label: int
    name: str
    more: str
    synset: str
    definition: str

    @property
    def line(self) -> str:
        """On one line of plain text."""
        what = self.definition or self.synset
        return f"{self.name}: {what}" if what else self.name

    @property
    def html(self) -> str:
        """As HTML."""
        name = f"<b>{escape(self.name)}</b>"
        also = f" ({escape(self.more)})" if self.more else ""
        what = f"<br/>{escape(self.definition)}" if self.definition else ""
        synset = f" <small>{escape(self.synset)}</small>" if self.synset else ""
        return f"{name}{also}{synset}{what}"


class Wording:
    """The words of a label space's classes, and of questions about them."""

    def __init__(self, space: LabelSpace) -> None:
        self._space = space

    def text_of(self, label: int) -> ClassText:
        """A class in words."""
        name, _, more = self._space.name_of(label).partition(", ")
        return ClassText(
            label,
            name or f"class {label}",
            more,
            _nth(self._space.synsets, label),
            _nth(self._space.definitions, label),
        )

    def options(self, question: Question) -> list[ClassText]:
        """The classes that a choice offers, or that a verification is about."""
        labels = question.candidates if question.label is None else (question.label,)
        return [self.text_of(label) for label in labels or ()]

    def question(self, question: Question) -> str:
        """What is asked, in one sentence."""
        if question.kind == CHOICE:
            return "Which of these does the image show?"
        classes = self.options(question)
        if len(classes) == 1:
            return f"Does the image show this: {classes[0].name}?"
        names = ", ".join(each.name for each in classes[:_LISTED])
        more = f" or {len(classes) - _LISTED} more" if len(classes) > _LISTED else ""
        return f"Does the image show one of these: {names}{more}?"

    def definition(self, question: Question) -> str:
        """What the classes of a verification are, as HTML; "" for a choice."""
        if question.kind == CHOICE:
            return ""
        return "<br/>".join(each.html for each in self.options(question)[:_LISTED])


def _nth(texts: Sequence[str] | None, label: int) -> str:
    return "" if texts is None else texts[label]
