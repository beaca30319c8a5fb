"""What a reader of the curves must know of images and workers that are no ordinary case."""

import numpy as np

from coyo_labeler.simulate.inputs import Images


def notes_of(images: Images, worker_accuracy: float) -> list[str]:
    """A sentence on each thing that is out of the ordinary.

    worker_accuracy: the mean of the workers', over classes.
    """
    notes = []
    counted = images.truth[~images.known]
    present = np.unique(counted)
    if images.classes == 1:
        notes.append("There is one class only: every label is right before any vote.")
    elif len(present) == 1:
        notes.append(
            f"All images are of class {present[0]}: accuracy says next to nothing of a policy."
        )
    if not images.known.any():
        notes.append(
            "No image is known at the start: the first votes alone teach the learner, and the "
            "workers' errors are estimated without truth, so that the estimated accuracy may be "
            "too high."
        )
    chance = 1 / images.classes
    if images.classes > 1 and worker_accuracy <= chance:
        notes.append(
            f"Workers are right in {worker_accuracy:.1%}, no more often than by chance "
            f"({chance:.1%}): their votes mislead every method that takes workers to be mostly "
            "right."
        )
    return notes
