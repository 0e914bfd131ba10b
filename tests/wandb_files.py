"""Reads the files of an offline W&B run: what `wandb sync` would send, and so what a dashboard would show."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swin_lab.run.wandb_files import offline_records


@dataclass
class OfflineRun:
    """Contains one file: that of one process."""

    id: str = ""
    name: str = ""
    group: str = ""
    tags: list[str] = field(default_factory=list)
    notes: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    exit_code: int | None = None


def read_offline(file: Path) -> OfflineRun:
    """Returns the contents of a .wandb file; the end of one that a killed process has left may be missing."""
    run = OfflineRun()
    for record in offline_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.name, run.group = record.run.run_id, record.run.display_name, record.run.run_group
            run.tags, run.notes = list(record.run.tags), record.run.notes
            run.config |= _values(record.run.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
        elif kind == "metric":
            run.axes[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def _values(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}
