"""Why a question is not sent."""

from enum import StrEnum


class Reason(StrEnum):
    """The reason of a row in rejects."""

    NO_URL = "no_url"
    NO_IMAGE = "no_image"
    NO_CANDIDATES = "no_candidates"


DETAILS = {
    Reason.NO_URL: "the question has no URL; give images=TARS",
    Reason.NO_IMAGE: "no tar of images holds this image",
    Reason.NO_CANDIDATES: "a choice among all classes cannot be shown; select with candidates=N",
}
