"""Label Studio's form of questions: a labelling configuration per kind, and the data of a task."""

from typing import Any
from xml.etree import ElementTree as ET

from coyo_labeler.annotation_tools.questions import CHOICE, Question
from coyo_labeler.send.wording import ANSWERS, NONE, UNSURE, Wording

#: The name of the control; collect looks for it.
CONTROL = "answer"

#: What people read before they begin.
INSTRUCTIONS = {
    "choice": "Choose the class that the image shows. If it shows several, take the most important "
    "one. If none fits, say so; if you cannot tell, say that. Skip an image that does not load.",
    "verify": "Read the definition: names have several meanings. Answer y (yes), n (no) or u "
    "(unsure). Skip an image that does not load.",
}


def configuration(kind: str) -> str:
    """The labelling configuration of a project (XML).

    A choice lists the classes of its own task (`$choices`), each with its definition.
    """
    view = ET.Element("View")
    ET.SubElement(view, "Header", value="$question")
    if kind != CHOICE:
        ET.SubElement(view, "HyperText", name="definition", value="$definition")
    ET.SubElement(view, "Image", name="image", value="$image", maxWidth="640px")
    common = {"name": CONTROL, "toName": "image", "choice": "single-radio", "required": "true"}
    if kind == CHOICE:
        ET.SubElement(view, "Choices", common | {"value": "$choices"})
    else:
        choices = ET.SubElement(view, "Choices", common | {"showInline": "true"})
        for value, key in ANSWERS:
            ET.SubElement(choices, "Choice", value=value, hotkey=key)
    ET.indent(view)
    return ET.tostring(view, encoding="unicode") + "\n"


def task(question: Question, image: str, wording: Wording) -> dict[str, Any]:
    """A task for import. Numbers that a browser would round are texts.

    What is in it can be read by everybody who may label: it holds neither why the question is
    asked, nor what the machine or gold says.
    """
    data: dict[str, Any] = {
        "image": image,
        "question_id": question.question_id,
        "image_id": str(question.image_id),
        "question": wording.question(question),
    }
    if question.kind == CHOICE:
        shown = [(str(each.label), each.html) for each in wording.options(question)]
        data["choices"] = [{"value": value, "html": html} for value, html in (*shown, NONE, UNSURE)]
    else:
        data["definition"] = wording.definition(question)
        if question.label is not None:
            data["label"] = question.label
    return {"data": data}
