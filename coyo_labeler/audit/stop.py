"""When to stop asking: how many more answers an interval takes, and what the next answer gains."""

from math import ceil, inf

import numpy as np

from coyo_labeler.audit.estimate import Estimate
from coyo_labeler.em.segments import F64, I64, bin_sum, segment_argmax, segment_max, spread
from coyo_labeler.errors import InputError


def further_answers(estimate: Estimate, half_width: float, images: int | None = None) -> int:
    """How many more answers of the kind an interval of ± half_width takes; 0 if it is reached.

    images: of the table. It takes no more answers than asking about all of them does.

    The variance falls as 1 / answers. That holds for the part that comes from the workers as well,
    as long as some of the answers are about gold, or about images that others answered too.

    Raises: InputError where half_width is not above 0.
    """
    if not half_width > 0:
        raise InputError(f"wanted_interval {half_width:g} is not above 0")
    now = (estimate.high - estimate.low) / 2
    more = estimate.answers * ((now / half_width) ** 2 - 1)
    if images is not None:
        per_image = estimate.answers / max(estimate.images, 1)
        more = min(more, per_image * max(images - estimate.images, 0))
    return max(0, ceil(more - 1e-9))


def is_reached(estimate: Estimate, wanted: float) -> bool:
    """Whether the wanted accuracy lies below the whole interval."""
    return wanted < estimate.low


def answer_gain(offsets: I64, probability: F64, accuracy: float, classes: int) -> F64:
    """By how much one more choice raises each image's expected highest posterior, (images,).

    offsets: (images + 1,). probability: (nnz,) posterior of the listed classes of each image.
    accuracy: of the worker; his mistakes are spread evenly over the other classes.

        Σ_v max_c p(c) θ(v | c) − max_c p(c),   θ(v | c) = a if v = c, (1 − a) / (C − 1) otherwise

    A choice of a class that is not listed leaves the order as it is.
    """
    astray = (1 - accuracy) / max(classes - 1, 1)
    images = len(offsets) - 1
    top = segment_max(probability, offsets)
    is_top = np.zeros(len(probability), dtype=bool)
    is_top[segment_argmax(probability, offsets)] = True
    # The vote for v ≠ top: v wins if a p(v) is above what the top class has left of it.
    other = np.maximum(accuracy * probability, astray * spread(top, offsets))
    second = np.where(is_top, -inf, probability)
    runner_up = np.maximum(segment_max(second, offsets), 0.0)
    mine = np.maximum(accuracy * top, astray * runner_up)
    image = np.repeat(np.arange(images), np.diff(offsets))
    total = bin_sum(image, np.where(is_top, 0.0, other), images) + mine
    unlisted = classes - np.diff(offsets)
    return np.asarray(np.maximum(total + unlisted * astray * top - top, 0.0))
