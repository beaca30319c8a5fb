"""Hours, terabytes and money by hand."""

import json

import pytest

from coyo_labeler.config.plan import PlanSettings
from coyo_labeler.errors import InputError
from coyo_labeler.plan.estimate import estimate
from coyo_labeler.plan.run import run_plan
from coyo_labeler.plan.unit_costs import UnitCosts

COSTS = UnitCosts(
    machine="4 cores",
    measured="2026-01-01",
    ingest=3.6,
    fetch=3600.0,
    label=3600.0,
    device="cpu",
    model="m",
    device_images_per_second=1.0,
    merge=36.0,
    em=1.8,
    report=7.2,
    export=18.0,
    source_bytes=100.0,
    catalog_bytes=50.0,
    belief_bytes=500.0,
)


def settings(**given):
    return PlanSettings.model_validate(
        {"rows": 10_000_000, "kept_share": 0.5, "downloaded_share": 0.2, "cores": 10} | given
    )


def test_each_stage_by_hand():
    """10 M rows, 5 M in the catalog, 1 M images, 50,000 votes, on 10 cores and 2 GPUs."""
    plan = estimate(settings(gpus=2, gpu_images_per_second=100.0, image_kb=110.0), COSTS)
    stages = {stage.name: stage for stage in plan.stages}
    assert plan.images == 1_000_000
    assert plan.votes == 50_000
    assert stages["ingest"].core_hours == pytest.approx(0.01)
    assert stages["ingest"].read_tb == pytest.approx(0.001)
    # 1 M images of 3.6 ms are one core hour; 110 GB at 10 Gbit/s take 88 s.
    assert stages["fetch"].hours == pytest.approx(0.1)
    assert stages["fetch"].bound == "cores"
    assert stages["fetch"].settings == {"shards": 500}
    # 200 images a second for 1 M images: 5,000 s, in which both GPUs and all cores are paid for.
    assert stages["label"].hours == pytest.approx(5000 / 3600)
    assert stages["label"].gpu_hours == pytest.approx(10_000 / 3600)
    assert stages["label"].bound == "GPUs"
    assert stages["merge"].core_hours == pytest.approx((36e6 + 50_000 * 1.8 * 30) / 3.6e9)
    assert stages["report"].core_hours == pytest.approx(0.002)
    assert plan.kept_tb == pytest.approx((5e6 * 50 + 1e6 * (110e3 + 3 * 500)) / 1e12)
    assert plan.vote_price == pytest.approx(1500)
    assert plan.price == pytest.approx(plan.machine_price + plan.storage_price + 1500)


def test_a_thin_line_bounds_fetch_and_slow_decoding_bounds_label():
    plan = estimate(settings(network_gbps=0.1, gpus=1, gpu_images_per_second=10_000.0), COSTS)
    stages = {stage.name: stage for stage in plan.stages}
    assert stages["fetch"].bound == "network"
    assert stages["fetch"].hours == pytest.approx(110e9 * 8 / 1e8 / 3600)
    assert stages["label"].bound == "cores"
    assert stages["label"].hours == pytest.approx(0.1)


def test_without_a_gpu_label_runs_on_the_cores():
    plan = estimate(settings(gpus=8), COSTS)  # none was measured
    label = next(stage for stage in plan.stages if stage.name == "label")
    assert label.gpu_hours == 0
    assert label.hours == pytest.approx(1e6 / 10 / 3600 + 0.1)


def test_twice_the_rows_cost_twice_as_much():
    once, twice = (estimate(settings(rows=rows), COSTS) for rows in (10**8, 2 * 10**8))
    assert twice.hours == pytest.approx(2 * once.hours)
    assert twice.price == pytest.approx(2 * once.price)


def test_a_merge_per_round():
    assert [stage.name for stage in estimate(settings(merges=3), COSTS).stages].count("merge") == 3


def test_the_command_writes_what_it_says(tmp_path):
    costs = tmp_path / "costs.json"
    costs.write_text(json.dumps(COSTS.to_json()))
    text = run_plan(settings(unit_costs=str(costs), output=str(tmp_path / "out")))
    assert (tmp_path / "out" / "plan.txt").read_text() == text
    document = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert document["images"] == 1_000_000
    assert [stage["name"] for stage in document["stages"]][:3] == ["ingest", "fetch", "label"]
    assert "no GPU was measured" in text
    assert UnitCosts.read(str(tmp_path / "out" / "unit_costs.json")) == COSTS


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"em": "fast"}, "'em' is 'fast'"),
        ({"em": None}, "'em' is None"),
        ({"em": -1}, "'em' is -1"),
        ({"em": True}, "'em' is True"),
        ({"device": 3}, "'device' is 3"),
        ({"device_images_per_second": 0}, "'device_images_per_second' is 0"),
    ],
)
def test_wrong_unit_costs_are_named(tmp_path, change, said):
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(COSTS.to_json() | change))
    with pytest.raises(InputError, match="unit_costs") as raised:
        UnitCosts.read(str(path))
    assert said in str(raised.value)


def test_missing_unit_costs_are_named(tmp_path):
    path = tmp_path / "costs.json"
    with pytest.raises(InputError, match="no file at"):
        UnitCosts.read(str(path))
    path.write_text("{}")
    with pytest.raises(InputError, match="'machine' is missing"):
        UnitCosts.read(str(path))
