"""A plan as keys of the `model.toml` that speaks for the model."""

from __future__ import annotations

import os

from infold.errors import ConfigError, TargetError
from infold.runtime import ModelConfig, read_config
from infold.runtime.config_edit import Changes, edited, set_keys, shown
from infold.runtime.model_config import parse_config
from infold.tune.choice import Choice
from infold.tune.subject import CONFIG, Subject
from infold.tune.ways import counted

__all__ = ["check_writable", "plan_keys", "write_plan"]


def plan_keys(choice: Choice, config: ModelConfig) -> Changes:
    """What has to stand in a `model.toml` for serving to do as the plan says.

    Args:
        choice: The plan.
        config: What stands there now. Its `max_rows` is lowered where larger runs are worse;
            a plan of one row leaves it, since nothing is joined then.
    """
    cell = choice.cell
    batching: dict[str, str | int] = {"join": "always" if cell.rows > 1 else "never"}
    if 1 < cell.rows < config.batching.max_rows:
        batching["max_rows"] = cell.rows
    return {
        "session": {
            "intra_op_threads": cell.way.threads,
            "runs": cell.way.runs,
            "wide": "always" if choice.is_wide else "never",
        },
        "batching": batching,
    }


def check_writable(subject: Subject) -> None:
    """Fail before anything is measured.

    Raises:
        ConfigError: No `model.toml` speaks for it.
        TargetError: That cannot be written.
    """
    path = subject.config_path
    if path is None:
        raise ConfigError(
            "--write", f"{subject.version.path} lies in no model repository, so no model.toml speaks for it"
        )
    if not os.access(path.parent, os.W_OK):
        raise TargetError(path, "its folder cannot be written")


def write_plan(subject: Subject, choice: Choice) -> list[str]:
    """Write a plan, once it is sure that serving will follow it.

    Returns:
        What was written, and what a reader should know of it, a line each.

    Raises:
        ConfigError: A version's own `model.toml` beats it or does not go with it, or it cannot be edited.
        TargetError: It cannot be written.
    """
    path, folder = subject.config_path, subject.folder
    assert path is not None
    assert folder is not None
    changes = plan_keys(choice, subject.version.config)
    triton = subject.version.triton
    below = None if triton is None else triton.base
    base = read_config(folder / CONFIG, below) if subject.is_one_version else below
    config = parse_config(edited(path, changes, base), path, base)
    if not subject.is_one_version:
        for version in subject.versions:
            above = version.path.with_name(CONFIG)
            own = read_config(above, config)
            if version is subject.version and (beaten := _unsaid(own, changes)):
                raise ConfigError(
                    str(above), f"sets {beaten} itself, which beats {path}; tune {above.parent}"
                )
    set_keys(path, changes, base)
    lines = [f"wrote {path}: {', '.join(shown(changes))}"]
    if "max_rows" in changes["batching"] and not config.batching.rows_are_independent:
        most = counted(choice.cell.rows, "row")
        lines.append(
            f"note: a request of more than {most} is refused from now on; "
            "batching.rows_are_independent = true would run it in parts"
        )
    return lines


def _unsaid(config: ModelConfig, changes: Changes) -> str | None:
    """The first key that has another value after all."""
    for section, values in changes.items():
        for key, value in values.items():
            if getattr(getattr(config, section), key) != value:
                return f"{section}.{key}"
    return None
