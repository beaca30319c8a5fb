"""Why an answer is no vote."""

from enum import StrEnum


class Reason(StrEnum):
    """The reason of a row in rejects."""

    MALFORMED = "malformed"
    MISSING_WORKER = "missing_worker"
    UNKNOWN_QUESTION = "unknown_question"
    PREDICTION = "prediction"
    GROUND_TRUTH = "ground_truth"
    REJECTED_ASSIGNMENT = "rejected_assignment"
    SKIPPED = "skipped"
    AFTER_DEADLINE = "after_deadline"
    UNKNOWN_CHOICE = "unknown_choice"
    SECOND_ANSWER = "second_answer"
