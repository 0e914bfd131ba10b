"""What `swin-lab bench model` shows: tables, chart and numbers."""

from collections.abc import Sequence
from dataclasses import asdict

from swin_lab.bench.device import PRODUCT_SIDE
from swin_lab.bench.machine import device_name
from swin_lab.bench.model import OURS, Networks, Row, Settings, Table
from swin_lab.bench.output import Result, Shown
from swin_lab.bench.stages import StageRow
from swin_lab.bench.steps import PRECISION_TEXT, TRAINING_STEP
from swin_lab.bench.timing import CLOCK_TEXT
from swin_lab.report.bars import Bar, short_number

MIB = 2**20

Stages = dict[tuple[str, str, str], list[StageRow]]
"""(model, work, precision) -> rows."""


def model_result(
    models: dict[str, Networks], tables: Sequence[Table], stages: Stages, settings: Settings, threads: int
) -> Result:
    """Returns what is shown of a comparison.

    Args:
        models: name of a variant -> its networks.
        tables: one per variant, work and precision.
        stages: rows per stage; empty if they were not measured.
        settings: of the comparison.
        threads: of torch, on a CPU.
    """
    plan = settings.plan
    on_cpu = settings.device == "cpu"
    where = f"{device_name(settings.device)}{f', {threads} thread' + 's' * (threads > 1) if on_cpu else ''}"
    header = [
        ("compares", f"{', '.join(models)}: the same network and weights in each library, batch {settings.batch}"),
        ("on", where),
        ("time", f"{CLOCK_TEXT[plan.clock]}, {plan.rounds} interleaved rounds; medians and quartiles"),
    ]
    if "training" in settings.works:
        rates = {f"{networks.config.drop_path_rate:g}" for networks in models.values()}
        header.append(("training", f"{TRAINING_STEP} {', '.join(sorted(rates))}, in all libraries"))
    shown = [_networks(name, networks) for name, networks in models.items()]
    for table in tables:
        shown.append(_table(table, settings))
        rows = stages.get((table.model, table.work, table.precision))
        if rows:
            shown.append(_stages(table, rows))
    values = {
        "batch": settings.batch,
        "device": settings.device,
        "threads": threads if on_cpu else None,
        "clock": plan.clock,
        "rounds": plan.rounds,
        "networks": {name: _network_values(networks) for name, networks in models.items()},
        "tables": [table.as_dict() for table in tables],
        "stages": [
            {"model": model, "work": work, "precision": precision, "rows": [asdict(row) for row in rows]}
            for (model, work, precision), rows in stages.items()
        ],
    }
    return Result("bench model", header, shown, [(_title(table), _bars(table)) for table in tables], "images/s", values)


def _title(table: Table) -> str:
    size = "×".join(map(str, table.img_size))
    return f"{table.model} at {size}, {table.work}, {PRECISION_TEXT[table.precision]}"


def _networks(name: str, networks: Networks) -> Shown:
    rows = [[one.name, one.library, f"{one.parameters:,}", f"{one.difference:.1e}"] for one in networks.found]
    notes = [f"left out: {peer}: {why}" for peer, why in networks.left_out.items()]
    return Shown(name, ["network", "library", "parameters", "logits differ by"], rows, notes, left=["library"])


def _network_values(networks: Networks) -> dict[str, object]:
    found = [
        {"name": one.name, "library": one.library, "parameters": one.parameters, "difference": one.difference}
        for one in networks.found
    ]
    return {"config": networks.config.as_dict(), "networks": found, "left_out": networks.left_out}


def _table(table: Table, settings: Settings) -> Shown:
    columns = ["network", "mode", "images/s", "±", "ours/this", "products", "roofline", "MiB"]
    rates, gflops = table.rates, table.gflops_per_image
    side = PRODUCT_SIDE[settings.device]
    notes = [
        "±: half the distance of the quartiles; products, roofline: share reached; MiB: peak memory of a step, with weights"
    ]
    notes += [f"{row_mode}: ours / best peer ({peer}) = {factor:.2f}" for row_mode, (peer, factor) in table.best_peer.items()]
    notes += [
        f"matrix products alone at these shapes: {short_number(table.products.median)} images/s, {gflops:.2f} GFLOP each, "
        f"{short_number(gflops * table.products.median)} GFLOP/s",
        f"roofline: {short_number(table.roofline)} images/s, from a copy at {short_number(rates.bandwidth / 1e9)} GB/s and a "
        f"product of side {side} at {short_number(rates.products / 1e9)} GFLOP/s, both measured",
    ]
    notes += [f"failed: {name}: {error}" for name, error in table.failed.items()]
    return Shown(_title(table), columns, [_cells(row) for row in table.rows], notes, left=["mode"])


def _cells(row: Row) -> list[str]:
    speed = row.speed
    return [
        row.name,
        row.mode,
        f"{short_number(speed.median)}",
        f"{(speed.high - speed.low) / 2 / speed.median:.1%}",
        f"{row.ours_over_this:.2f}",
        f"{row.share_of_products:.0%}",
        f"{row.share_of_roofline:.0%}",
        f"{row.peak_bytes / MIB:,.0f}",
    ]


def _stages(table: Table, rows: Sequence[StageRow]) -> Shown:
    columns = ["part", "forward", "backward", "of total", "least fwd", "least bwd", "reached"]
    cells = []
    for row in rows:
        measured, predicted = row.forward + row.backward, row.predicted_forward + row.predicted_backward
        times = (row.forward, row.backward, row.predicted_forward, row.predicted_backward)
        forward, backward, least_forward, least_backward = (f"{seconds * 1000:.4g}" if seconds else "" for seconds in times)
        name = f"  {row.part}" if row.part else row.section
        share = f"{predicted / measured:.0%}" if predicted and not (row.part and row.part != "merging") else ""
        cells.append([name, forward, backward, f"{row.share:.0%}", least_forward, least_backward, share])
    notes = [
        "ms per image; least: by the roofline, for attention and MLP with their norms and residuals, which are not measured"
    ]
    return Shown(f"{OURS} by stage: {_title(table)}", columns, cells, notes)


def _bars(table: Table) -> list[Bar]:
    bars = [
        Bar(
            f"{row.name}{'' if len(table.best_peer) < 2 else f', {row.mode}'}",
            row.speed.median,
            row.speed.low,
            row.speed.high,
            emphasised=row.name.startswith(OURS),
            note="" if row.name == OURS else f"(ours {row.ours_over_this:.2f}×)",
        )
        for row in table.rows
    ]
    alone, limit = table.products, table.roofline
    return [*bars, Bar("products alone", alone.median, alone.low, alone.high), Bar("roofline", limit, limit, limit)]
