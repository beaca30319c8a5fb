"""A calibration that bends: a and b depend on how sure the machine is of an image.

confidence: the log-odds of the belief's greatest probability; in `truth: multi`, of the class that
is asked about. a and b are linear between the knots of a curve, and constant beyond its ends; or
they fade to a = 1, b = 0 there, over `FADE`, where nothing is known of images beyond.
"""

import numpy as np

from coyo_labeler.em.model import Calibration, Curve
from coyo_labeler.em.segments import F64, I64, Bool, segment_max

#: Log-odds over which a curve that fades goes back to the identity.
FADE = 1.0
#: Log-odds of 0 and 1 as far as confidence is concerned.
_MOST = 20.0


def confidence_of(value: F64, inside: Bool, offsets: I64, logits: bool) -> F64:
    """The confidence of each belief, (n,); 0 where there is none.

    value: (nnz,) `priors.belief_value`; inside: (nnz,) where it is one. logits: whether values are
    log-odds; else they are logs.
    """
    top = segment_max(np.where(inside, value, -np.inf), offsets)
    top = np.where(np.isfinite(top), top, 0.0)
    if not logits:
        top = np.minimum(top, -np.exp(-_MOST))
        top = top - np.log(-np.expm1(top))
    return np.clip(top, -_MOST, _MOST)


def basis(confidence: F64, curve: Curve) -> F64:
    """How much each knot counts at each confidence (n,), (n, knots); the identity has the rest."""
    knots = np.array(curve.knots)
    hats = np.stack(
        [np.interp(confidence, knots, unit) for unit in np.eye(len(knots))], axis=1
    ).reshape(len(confidence), len(knots))
    if curve.fades:
        beyond = np.maximum(np.maximum(knots[0] - confidence, confidence - knots[-1]), 0.0)
        hats *= np.maximum(1.0 - beyond / FADE, 0.0)[:, None]
    return hats


def local_map(calibration: Calibration, confidence: F64) -> tuple[F64, F64]:
    """a and b of each image, (n,) each."""
    if calibration.curve is None:
        full = np.ones(len(confidence))
        return calibration.a * full, calibration.b * full
    weights = basis(confidence, calibration.curve)
    rest = 1.0 - weights.sum(axis=1)
    a = weights @ np.array(calibration.curve.a) + rest
    return a, weights @ np.array(calibration.curve.b)


def straight(
    knots: tuple[float, ...], fades: bool, calibration: Calibration, tied: bool = False
) -> Calibration:
    """The curve with these knots that is the same map everywhere, but for where it fades."""
    count = len(knots)
    curve = Curve(knots, (calibration.a,) * count, (calibration.b,) * count, fades, tied)
    return Calibration(calibration.a, calibration.b, curve)
