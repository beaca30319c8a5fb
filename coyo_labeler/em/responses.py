"""What a vote can say."""

from enum import IntEnum


class Response(IntEnum):
    """What a vote says. CHOICE: the worker chose the label; else the answer to a question."""

    CHOICE = 0
    YES = 1
    NO = 2
    UNSURE = 3
