"""The accuracy of a labels table, with an interval, from questions that were drawn by chance.

`inputs`     the judged images, the answers and the population
`states`     the classes an image may have, with their prior; `answer_terms`: how probable each
             answer is under each; `terms`: the logistic factors of both, and their parameters
`fit`        the most probable parameters of workers and table (Newton), and their covariance
`draws`      draws of parameters, true classes and bootstrap weights
`estimate`   the accuracy in each draw: weights, finite population, regression; its interval
`no_mistake` whether a table without a wrong label could have led to the answers
`agreement`  agreement of answers, and Krippendorff's alpha
`tables`     tables of votes and labels to `inputs`; the label without an image's own answers
`nodes`      verifications of classes with others below them
`folders`    the same from folders, without Spark
`stop`       how many more answers an interval takes; what the next answer gains
"""

from coyo_labeler.audit.estimate import Estimate, Frame, estimate, estimate_frames
from coyo_labeler.audit.folders import estimate_folders
from coyo_labeler.audit.inputs import Answer, Answers, Judged, Lists, Population
from coyo_labeler.audit.stop import answer_gain, further_answers, is_reached

__all__ = [
    "Answer",
    "Answers",
    "Estimate",
    "Frame",
    "Judged",
    "Lists",
    "Population",
    "answer_gain",
    "estimate",
    "estimate_folders",
    "estimate_frames",
    "further_answers",
    "is_reached",
]
