import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from timm.data.imagenet_info import ImageNetInfo

from coyo_labeler.errors import InputError
from coyo_labeler.formats import label_spaces
from coyo_labeler.formats.label_spaces import LabelSpace, load_label_space


@pytest.mark.parametrize(
    ("name", "listed"), [("imagenet21k", "imagenet22k"), ("imagenet1k", "imagenet1k")]
)
def test_classes_are_called_what_timm_calls_them(name: str, listed: str) -> None:
    space, info = load_label_space(name), ImageNetInfo(listed)
    assert [space.name_of(c) for c in range(space.size)] == info.label_descriptions()
    assert list(space.synsets or ()) == info.label_names()


def test_published_labels_have_the_names_of_their_pictures() -> None:
    # COYO-Labeled-300M's row 315 is a pair of table lamps; 4942 is a boot.
    space = load_label_space("imagenet21k")
    assert [space.name_of(c) for c in (8087, 11054, 4942)] == ["lamp", "table lamp", "boot"]
    assert space.synsets is not None
    assert (space.size, space.synsets[11054]) == (21_841, "n04380533")
    assert space.definitions is not None
    assert space.definitions[11054] == "a lamp that sits on a table"


def test_a_text_file_names_its_classes_and_has_no_synsets(tmp_path: Path) -> None:
    (tmp_path / "imagenet21k").write_text("zero\none \ntwo\n\n")
    space = load_label_space(str(tmp_path / "imagenet21k"))
    assert (space.name, space.size, space.synsets) == ("imagenet21k", 3, None)
    assert space.definitions is None
    assert space.names == ("zero", "one", "two")
    assert space.describe() == "imagenet21k (0..2)"


def test_a_text_file_as_windows_saves_it_names_the_same_classes(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbfzero\r\none\r\n\r\n")
    assert load_label_space(str(tmp_path / "classes.txt")).names == ("zero", "one")


def test_what_is_neither_a_known_name_nor_a_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither one of imagenet21k, imagenet1k nor a UTF-8"):
        load_label_space("imagenet22k")
    (tmp_path / "one.txt").write_text("zero\n")
    with pytest.raises(InputError, match="names fewer than two classes"):
        load_label_space(str(tmp_path / "one.txt"))


def test_classes_have_their_names_without_timm_and_heads_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(label_spaces, "_folder", lambda: None)
    for listed in (label_spaces.read_synsets, label_spaces.read_timm_synsets):
        listed.cache_clear()
    space = load_label_space("imagenet1k")
    assert space.synsets is not None
    assert (space.size, space.name_of(0), space.synsets[0]) == (
        1_000,
        "tench, Tinca tinca",
        "n01440764",
    )
    with pytest.raises(ModuleNotFoundError, match="timm, which has the list of the head's"):
        label_spaces.read_synsets("imagenet21k_goog")
    assert LabelSpace("imagenet1k", 1_000, ("a", "b")).synsets is None


def test_a_task_is_sent_the_name_of_a_list_and_not_the_list() -> None:
    space = load_label_space("imagenet21k")
    assert space.names is not None
    assert len(pickle.dumps(space)) < 200
    assert pickle.loads(pickle.dumps(space)) == LabelSpace("imagenet21k", 21_841)


def test_naming_classes_loads_no_torch() -> None:
    program = (
        "import sys; from coyo_labeler.formats.label_spaces import load_label_space; "
        "load_label_space('imagenet21k').name_of(5); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
