import subprocess
import sys

import pytest
from timm.data.imagenet_info import ImageNetInfo

from coyo_labeler.label_names import read_names


@pytest.mark.parametrize(
    ("label_space", "listed"), [("imagenet21k", "imagenet22k"), ("imagenet1k", "imagenet1k")]
)
def test_classes_are_called_what_timm_calls_them(label_space: str, listed: str) -> None:
    names, info = read_names(label_space), ImageNetInfo(listed)
    assert [names[c] for c in range(names.size)] == info.label_descriptions()


def test_published_labels_have_the_names_of_their_pictures() -> None:
    # COYO-Labeled-300M's row 315 is a pair of table lamps; 4942 is a boot.
    names = read_names("imagenet21k")
    assert [names[c] for c in (8087, 11054, 4942)] == ["lamp", "table lamp", "boot"]


def test_naming_classes_loads_no_torch() -> None:
    program = (
        "import sys; from coyo_labeler.label_names import read_names; "
        "read_names('imagenet21k'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
