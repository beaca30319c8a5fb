"""The calibration on inputs that are too small to mean anything: it runs, and every cost is one."""

import dataclasses

from coyo_labeler.plan.calibrate import calibrate


def test_every_cost_is_measured(spark):
    costs = calibrate("test_efficientnet.r160_in1k", "imagenet1k", 3000, 1000, seconds=0.1)
    numbers = {
        field.name: getattr(costs, field.name)
        for field in dataclasses.fields(costs)
        if isinstance(getattr(costs, field.name), float)
    }
    assert len(numbers) == 11
    assert all(value > 0 for value in numbers.values()), numbers
    assert 50 < costs.belief_bytes < 2000
