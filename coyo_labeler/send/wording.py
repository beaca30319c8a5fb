"""Questions in words: what people read about the classes that they are asked about.

3,186 classes of ImageNet-21k share their first name with another, so every name comes with its
definition, or at least with its synset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from coyo_labeler.annotation_tools.questions import CHOICE, Question
from coyo_labeler.formats.label_spaces import LabelSpace
from coyo_labeler.formats.label_tree import find_label_tree

#: Answers besides the classes of a choice, with the words that are shown.
NONE, UNSURE = ("none", "none of these"), ("unsure", "I am not sure")
#: Answers to a verification, with their keys on the keyboard.
ANSWERS = (("yes", "y"), ("no", "n"), ("unsure", "u"))

#: Classes that a question lists; people do not read more. Kinds of a node that it lists.
_LISTED, _KINDS = 30, 12
#: Characters of a title.
_TITLE = 120


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
        if what:
            return f"{self.name}: {what}"
        # Nothing else tells `crane, bird` from `crane, machine`.
        return f"{self.name}, {self.more}" if self.more else self.name

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
        self._tree = find_label_tree(space)

    def text_of(self, label: int) -> ClassText:
        """A class in words."""
        if self._space.given is not None and self._tree is not None:  # its names are synsets
            return self._node_text(label)
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
        node = self.node_of(question)
        if node is not None:
            return f"Does the image show this, of any kind: {self._node_text(node).name}?"
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
        node = self.node_of(question)
        if node is None:
            return "<br/>".join(each.html for each in self.options(question)[:_LISTED])
        return f"{self._node_text(node).html}<br/>{escape(self._kinds(node))}"

    def lines(self, question: Question) -> list[str]:
        """What the classes of a verification are, as lines of plain text; [] for a choice."""
        if question.kind == CHOICE:
            return []
        node = self.node_of(question)
        if node is None:
            return [each.line for each in self.options(question)[:_LISTED]]
        return [self._node_text(node).line, self._kinds(node)]

    def title(self, question_id: str, asks: Sequence[int]) -> str:
        """A few words for the classes that a verification is about."""
        node = self._find_node(question_id, asks)
        if node is not None:
            text = self._node_text(node)
            return _cut(f"{text.name} of any kind: {text.definition}")
        first = self.text_of(asks[0])
        return _cut(first.line) if len(asks) == 1 else f"{first.name} or {len(asks) - 1} more"

    def node_of(self, question: Question) -> int | None:
        """The node of the label tree that a verification of several classes is about, if any."""
        if question.kind == CHOICE or question.label is not None:
            return None
        return self._find_node(question.question_id, question.candidates or ())

    def _find_node(self, question_id: str, classes: Sequence[int]) -> int | None:
        """By the end of the question's id, as select writes it, else by the classes alone."""
        tree = self._tree
        if tree is None or len(classes) < 2:
            return None
        named = tree.find(question_id.rpartition(":")[2])
        if named is not None and tree.node_set(named).tolist() == sorted(set(classes)):
            return named
        return tree.find_set(classes)

    def _node_text(self, node: int) -> ClassText:
        assert self._tree is not None
        name, _, more = self._tree.names[node].partition(", ")
        return ClassText(node, name, more, self._tree.synsets[node], self._tree.definitions[node])

    def _kinds(self, node: int) -> str:
        """The nodes right below a node, by their first names."""
        assert self._tree is not None
        children = self._tree.children(node).tolist()
        names = [self._node_text(child).name for child in children[:_KINDS]]
        more = f" and {len(children) - _KINDS} more" if len(children) > _KINDS else ""
        return f"Kinds: {', '.join(names)}{more}"


def _cut(text: str) -> str:
    return text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…"


def _nth(texts: Sequence[str] | None, label: int) -> str:
    return "" if texts is None else texts[label]
