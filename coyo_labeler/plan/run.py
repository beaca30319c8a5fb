"""The command `plan`: measure or read the unit costs, estimate, write, say."""

from dataclasses import asdict

from coyo_labeler import storage
from coyo_labeler.config.plan import PlanSettings
from coyo_labeler.plan.estimate import Plan, estimate
from coyo_labeler.plan.unit_costs import UnitCosts

_COLUMNS = ("stage", "rows", "hours", "core hours", "GPU hours", "TB read", "TB written", "price")


def run_plan(settings: PlanSettings) -> str:
    """Write plan.json, plan.txt and unit_costs.json; returns the text.

    Raises: InputError where unit costs cannot be read or measured.
    """
    if settings.unit_costs is not None:
        costs = UnitCosts.read(settings.unit_costs)
    else:
        from coyo_labeler.plan.calibrate import calibrate  # noqa: PLC0415

        costs = calibrate(settings.model, settings.label_space)
    plan = estimate(settings, costs)
    text = describe(plan, settings, costs)
    storage.write_json(storage.join(settings.output, "unit_costs.json"), costs.to_json())
    document = {
        "settings": settings.model_dump(mode="json"),
        "unit_costs": costs.to_json(),
        "stages": [asdict(stage) | {"price": stage.price(settings)} for stage in plan.stages],
        "images": plan.images,
        "votes": plan.votes,
        "hours": plan.hours,
        "kept_tb": plan.kept_tb,
        "price": {
            "machines": plan.machine_price,
            "storage": plan.storage_price,
            "votes": plan.vote_price,
            "in_all": plan.price,
        },
    }
    storage.write_json(storage.join(settings.output, "plan.json"), document)
    storage.write_bytes(storage.join(settings.output, "plan.txt"), text.encode())
    return text


def describe(plan: Plan, settings: PlanSettings, costs: UnitCosts) -> str:
    """The plan as text: a table, what bounds each stage, the sums, and what it rests on."""
    rows = [
        (
            stage.name, f"{stage.rows:,.0f}", f"{stage.hours:,.1f}", f"{stage.core_hours:,.0f}",
            f"{stage.gpu_hours:,.0f}", f"{stage.read_tb:,.2f}", f"{stage.written_tb:,.2f}",
            f"{stage.price(settings):,.0f}",
        )
        for stage in plan.stages
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (_COLUMNS, *rows)) for i in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (_COLUMNS, *rows)
    ]
    bounds = ", ".join(
        f"{stage.name} by its {stage.bound}" for stage in plan.stages if stage.name != "merge"
    )
    follows = [
        f"{stage.name} {key}={value}"
        for stage in plan.stages
        for key, value in stage.settings.items()
    ]
    device = costs.device if costs.device != "cpu" else "CPU core"
    notes = [
        f"{plan.hours:,.0f} hours in all, one stage after the other; {plan.images:,.0f} images, "
        f"{plan.votes:,.0f} votes; {plan.kept_tb:,.2f} TB are kept",
        f"price: machines {plan.machine_price:,.0f}, storage {plan.storage_price:,.0f}, votes "
        f"{plan.vote_price:,.0f}; {plan.price:,.0f} in all",
        f"bound: {bounds}",
        f"settings that follow: {', '.join(dict.fromkeys(follows))}",
        f"unit costs: {costs.machine}, {costs.measured}; {costs.model} "
        f"{costs.device_images_per_second:,.2f} images/s on a {device}",
    ]
    if settings.gpus and costs.device == "cpu" and settings.gpu_images_per_second is None:
        notes.append(
            "no GPU was measured: label is planned on the cores; give gpu_images_per_second=N, as "
            "measured on the GPU that you will use"
        )
    return "\n".join([*lines, "", *notes])
