from importlib.resources import files

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from coyo_labeler.errors import InputError
from coyo_labeler.formats.label_spaces import load_label_space
from coyo_labeler.label.head import match_head, order_of
from coyo_labeler.label.model import Teacher
from coyo_labeler.label.spec import TeacherSpec
from tests.label.teachers import MODEL

TABLE_LAMP, TABLE_LAMP_SYNSET = 11_054, "n04380533"


def listed(name):
    return files("timm.data").joinpath(f"_info/{name}.txt").read_text().split()


def synsets(name):
    return listed(f"{name}_synsets")


@pytest.mark.parametrize(
    ("head", "map_of_timm", "dropped"),
    [
        ("imagenet21k_goog", "imagenet21k_goog_to_22k_indices", {9_205, 15_027}),
        ("imagenet22k_ms", "imagenet22k_ms_to_22k_indices", {850}),
    ],
)
def test_the_map_leads_each_class_to_the_output_of_its_synset(head, map_of_timm, dropped):
    ours, theirs = synsets("imagenet22k"), synsets(head)
    assert [theirs[output] for output in order_of(head)] == ours
    assert set(range(len(theirs))) - set(order_of(head).tolist()) == dropped
    assert order_of(head).tolist() == [int(index) for index in listed(map_of_timm)]


def test_the_published_list_is_sorted_and_its_lamps_are_where_the_published_rows_have_them():
    ours = synsets("imagenet22k")
    assert ours == sorted(ours)
    assert ours[TABLE_LAMP] == TABLE_LAMP_SYNSET


def test_heads_are_known_by_their_size():
    space = load_label_space("imagenet21k")
    assert match_head(21_843, space).name == "imagenet21k_goog"
    assert match_head(21_842, space).name == "imagenet22k_ms"
    assert match_head(21_841, space).order is None


@pytest.mark.parametrize(
    ("outputs", "space", "model_space", "says"),
    [
        (
            1_000,
            "imagenet21k",
            None,
            r"21,841.*_goog \(21,843\) or .*_ms \(21,842\).*label_space=imagenet1k",
        ),
        (21_843, "imagenet1k", None, r"imagenet1k \(1,000\).*label_space=imagenet21k"),
        (7, "imagenet21k", None, r"label_space=FILE"),
        (21_843, "imagenet21k", "imagenet21k", r"21,841 classes, but the model has 21,843"),
        (1_000, "imagenet21k", "imagenet1k", r"no map from imagenet1k.*label_space=imagenet1k"),
        (10, "imagenet21k", "nowhere.txt", r"nowhere.txt is neither"),
    ],
)
def test_a_head_that_fits_no_list_is_refused_with_what_would_fit(outputs, space, model_space, says):
    with pytest.raises(InputError, match=says) as caught:
        match_head(outputs, load_label_space(space), model_space)
    assert "\n" not in str(caught.value)


def write_lines(path, lines):
    path.write_text("\n".join(lines))
    return str(path)


def test_a_head_of_stated_order_is_mapped_by_its_classes(tmp_path):
    ours = write_lines(tmp_path / "ours.txt", ["cat", "dog", "bird"])
    space = load_label_space(ours)
    theirs = write_lines(tmp_path / "theirs.txt", ["dog", "bird", "background", "cat"])
    head = match_head(4, space, theirs)
    assert (head.name, head.order.tolist()) == ("theirs.txt", [3, 0, 1])
    same = write_lines(tmp_path / "same.txt", ["cat", "dog", "bird"])
    assert match_head(3, space, same).order is None
    reverse = write_lines(tmp_path / "reverse.txt", reversed(synsets("imagenet22k")))
    order = match_head(21_841, load_label_space("imagenet21k"), reverse).order
    assert order.tolist() == list(range(21_840, -1, -1))
    lamps = load_label_space(write_lines(tmp_path / "lamps.txt", ["n03931044", TABLE_LAMP_SYNSET]))
    order = match_head(21_843, lamps, "imagenet21k_goog").order
    assert [synsets("imagenet21k_goog")[output] for output in order] == list(lamps.given)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["dog", "bird", "horse"], r"has no class 'cat' of ours.txt \(1 of 3"),
        (["dog", "bird", "cat", "cat"], r"in another order.*more than once"),
    ],
)
def test_a_stated_order_that_does_not_lead_to_every_class_is_refused(tmp_path, lines, says):
    space = load_label_space(write_lines(tmp_path / "ours.txt", ["cat", "dog", "bird"]))
    theirs = write_lines(tmp_path / "theirs.txt", lines)
    with pytest.raises(InputError, match=says) as caught:
        match_head(len(lines), space, theirs)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_called_like_a_known_list_is_not_taken_for_it(tmp_path):
    path = write_lines(tmp_path / "imagenet21k", [f"class {i}" for i in range(21_841)])
    with pytest.raises(InputError, match="no head for imagenet21k"):
        match_head(21_843, load_label_space(path))


@pytest.mark.parametrize(
    ("synset", "label"), [(TABLE_LAMP_SYNSET, TABLE_LAMP), ("n03931044", None), ("n09859684", None)]
)
def test_the_mass_of_an_output_lands_on_its_class_or_nowhere(synset, label, tmp_path):
    """A model that puts its mass on the table lamp yields 11054; on a dropped output, nothing."""
    torch.manual_seed(0)
    state = timm.create_model(MODEL, num_classes=21_843).state_dict()
    state["classifier.weight"] *= 0
    state["classifier.bias"] = torch.full((21_843,), -9.0)
    state["classifier.bias"][synsets("imagenet21k_goog").index(synset)] = 9.0
    save_file(state, tmp_path / "m.safetensors")
    spec = TeacherSpec(
        MODEL, checkpoint=str(tmp_path / "m.safetensors"), preprocess="automl_64", top_k=21_841
    )
    teacher = Teacher(spec, torch.device("cpu"))
    labels, probs, _ = teacher.answer(torch.zeros(1, 3, 64, 64))
    assert np.array_equal(np.sort(labels[0]), np.arange(21_841))
    above = labels[0][probs[0] > 0.5].tolist()
    assert above == ([] if label is None else [label])
