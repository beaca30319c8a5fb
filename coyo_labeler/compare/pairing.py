"""What belongs together in two sets: images by file name, classes by name."""

from dataclasses import dataclass

from coyo_labeler.compare.batch import Categories, Task
from coyo_labeler.compare.coco_files import AnnotatedImage, InstanceSet, base_names
from coyo_labeler.compare.records import Canvas


@dataclass(frozen=True)
class Pairing:
    """classes: all names, those of a first. a, b: the class of each category id, per file. tasks:
    one per image of either set. by_base_name: whether images were paired without their folders.
    other_size: images that differ in size, whose objects are not matched.
    """

    classes: tuple[str, ...]
    a: Categories
    b: Categories
    tasks: list[Task]
    images_in_both: int
    by_base_name: bool
    other_size: list[str]


def pair_sets(a: InstanceSet, b: InstanceSet) -> Pairing:
    """Pair images and classes.

    Where no image of a is one of b by its whole file name, names count without folders, if that
    leaves them apart: `train2017/1.jpg` and `1.jpg`.
    """
    classes = tuple(dict.fromkeys([*a.classes, *b.classes]))
    number = {name: index for index, name in enumerate(classes)}
    images_a, images_b, by_base_name = _named_alike(a.images, b.images)
    tasks, other_size = [], []
    empty = AnnotatedImage(Canvas(0, 0))
    for name in sorted({*images_a, *images_b}):
        own, other = images_a.get(name, empty), images_b.get(name, empty)
        in_both = name in images_a and name in images_b
        sizes = {image.canvas for image in (own, other) if image.canvas.height}
        if in_both and len(sizes) > 1:
            other_size.append(name)
        canvas = next(iter(sizes)) if len(sizes) == 1 else Canvas(0, 0)
        tasks.append(
            Task(
                name,
                own.canvas if own.canvas.height else canvas,
                other.canvas if other.canvas.height else canvas,
                in_both and len(sizes) < 2,
                own.entries,
                other.entries,
            )
        )
    return Pairing(
        classes,
        [{key: number[name] for key, name in names.items()} for names in a.categories],
        [{key: number[name] for key, name in names.items()} for names in b.categories],
        tasks,
        len(images_a.keys() & images_b.keys()),
        by_base_name,
        other_size,
    )


def _named_alike(
    a: dict[str, AnnotatedImage], b: dict[str, AnnotatedImage]
) -> tuple[dict[str, AnnotatedImage], dict[str, AnnotatedImage], bool]:
    if a.keys() & b.keys():
        return a, b, False
    short_a, short_b = base_names(list(a)), base_names(list(b))
    if short_a is None or short_b is None or not short_a.keys() & short_b.keys():
        return a, b, False
    return (
        {short: a[name] for short, name in short_a.items()},
        {short: b[name] for short, name in short_b.items()},
        True,
    )
