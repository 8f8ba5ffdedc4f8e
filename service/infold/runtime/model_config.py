"""`model.toml`: what a model's owner says about serving it.

One schema, written by the converter and read by the service. The file beside a
model's versions speaks for all of them; one inside a version overrides it key
by key. Unknown keys are errors, so that a typo is not a silent default.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from infold.errors import ConfigError
from infold.runtime.image_config import Classification, ImageInput
from infold.runtime.shadow_config import ShadowConfig

__all__ = [
    "Batching",
    "Canary",
    "GoldenConfig",
    "ModelConfig",
    "SessionConfig",
    "parse_config",
    "read_config",
    "versions_of",
]

LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
CHOICES = ("auto", "always", "never")

Section = TypeVar(
    "Section",
    "Batching",
    "SessionConfig",
    "Canary",
    ImageInput,
    Classification,
    ShadowConfig,
    "GoldenConfig",
)


@dataclass(frozen=True, slots=True)
class Batching:
    """How requests share a run.

    Attributes:
        max_rows: Most rows in one run; 1 switches batching off.
        max_delay_s: How long the oldest request may wait for company, in seconds.
        capacity_rows: Most rows that may wait; beyond that callers are refused.
        join: `auto` joins requests as far as a measurement says that it pays; `always`, `never`.
        preferred_rows: Numbers of rows at which a run is not delayed any more.
        pad_to: Numbers of rows that a run is filled up to with copies, so that shapes repeat.
        rows_are_independent: A request of more than `max_rows` rows is run in parts.
    """

    max_rows: int = 64
    max_delay_s: float = 0.0
    capacity_rows: int = 256
    join: str = "auto"
    preferred_rows: tuple[int, ...] = ()
    pad_to: tuple[int, ...] = ()
    rows_are_independent: bool = False

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        if self.max_rows < 1:
            return "max_rows", f"{self.max_rows} is not at least 1"
        if not 0 <= self.max_delay_s <= 60:
            return "max_delay_s", f"{self.max_delay_s} is not between 0 and 60 seconds"
        if self.capacity_rows < self.max_rows:
            return "capacity_rows", f"{self.capacity_rows} is less than max_rows = {self.max_rows}"
        if self.join not in CHOICES:
            return "join", f"'{self.join}' is none of {', '.join(CHOICES)}"
        for key, rows in (("preferred_rows", self.preferred_rows), ("pad_to", self.pad_to)):
            if any(not 1 <= each <= self.max_rows for each in rows):
                return key, f"{list(rows)} are not all between 1 and max_rows = {self.max_rows}"
        return None


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """How onnxruntime runs the model.

    Attributes:
        intra_op_threads: Threads inside one run; 0 leaves it to the plan, which takes 1.
        runs: Runs at once; 0 means as many as the cores allow.
        wide: `auto` gives a request that is alone all cores where that is faster; `always`, `never`.
        inline: `auto` runs on the event loop what is over in 0.15 ms; `always`, `never`.
        disabled_optimizers: Graph optimizers of onnxruntime to leave out, by name.
        tf32: On a GPU, products of float32 may be rounded as TensorFloat-32.
        cuda_graph: On CUDA, runs are recorded once and replayed; all lengths must be fixed.
        tensorrt_fp16: TensorRT may compute in float16.
        gpu_memory_bytes: Most GPU memory of its session; 0 leaves it to the service.
    """

    intra_op_threads: int = 0
    runs: int = 0
    wide: str = "auto"
    inline: str = "auto"
    disabled_optimizers: tuple[str, ...] = ()
    tf32: bool = False
    cuda_graph: bool = False
    tensorrt_fp16: bool = False
    gpu_memory_bytes: int = 0

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        if not 0 <= self.intra_op_threads <= 1024:
            return "intra_op_threads", f"{self.intra_op_threads} is not between 0 and 1024"
        if not 0 <= self.runs <= 1024:
            return "runs", f"{self.runs} is not between 0 and 1024"
        if not 0 <= self.gpu_memory_bytes < 2**63:
            return "gpu_memory_bytes", f"{self.gpu_memory_bytes} is not a number of bytes"
        for key, value in (("wide", self.wide), ("inline", self.inline)):
            if value not in CHOICES:
                return key, f"'{value}' is none of {', '.join(CHOICES)}"
        return None


@dataclass(frozen=True, slots=True)
class Canary:
    """How much of the traffic tries the newest version.

    Attributes:
        share: Of requests that name no version, what the newest gets; the one before it gets the rest.
    """

    share: float = 1.0

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        if not 0 <= self.share <= 1:
            return "share", f"{self.share} is not between 0 and 1"
        return None


@dataclass(frozen=True, slots=True)
class GoldenConfig:
    """How the golden samples beside a version are held against its answers.

    Attributes:
        tolerance: By how much numbers may differ, as a part of the largest of their output; 0 leaves
            it to their type.
    """

    tolerance: float = 0.0

    def problem(self) -> tuple[str, str] | None:
        """The first key that makes no sense, and why, or None."""
        if not 0 <= self.tolerance <= 1:
            return "tolerance", f"{self.tolerance} is not between 0 and 1"
        return None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything a `model.toml` may say.

    Attributes:
        versions: Which versions are served: `latest`, `latest:N`, `all`, or numbers.
        batching: How requests share a run.
        session: How onnxruntime runs the model.
        version_labels: Names of versions, to be asked for instead of a number.
        canary: How much of the traffic tries the newest version.
        image: How a picture becomes an input; None where pictures are not taken.
        classification: How an output is read as classes; None where it is not.
        shadow: What a share of the runs is held against; None for nothing.
        golden: How it is held against its golden samples.
    """

    versions: str | tuple[int, ...] = "latest"
    batching: Batching = field(default_factory=Batching)
    session: SessionConfig = field(default_factory=SessionConfig)
    version_labels: Mapping[str, int] = field(default_factory=dict)
    canary: Canary = field(default_factory=Canary)
    image: ImageInput | None = None
    classification: Classification | None = None
    shadow: ShadowConfig | None = None
    golden: GoldenConfig = field(default_factory=GoldenConfig)


def read_config(path: Path, base: ModelConfig | None = None) -> ModelConfig:
    """Read a `model.toml` on top of `base`; a missing file changes nothing.

    Raises:
        ConfigError: Not TOML, an unknown key, or a value that makes no sense; names the place.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return base or ModelConfig()
    except UnicodeDecodeError as broken:
        raise ConfigError(str(path), f"not valid TOML: {broken}") from broken
    except OSError as failure:
        raise ConfigError(str(path), failure.strerror or str(failure)) from failure
    return parse_config(text, path, base)


def parse_config(text: str, path: Path, base: ModelConfig | None = None) -> ModelConfig:
    """What `read_config` would read from a file at `path` that held this text.

    Raises:
        ConfigError: As there.
    """
    config = base or ModelConfig()
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as broken:
        raise ConfigError(str(path), f"not valid TOML: {broken}") from broken
    for key, value in data.items():
        place = f"{path}: {key}"
        if key == "versions":
            config = replace(config, versions=versions_of(value, place))
        elif key == "batching":
            config = replace(config, batching=_section(config.batching, value, place))
        elif key == "session":
            config = replace(config, session=_section(config.session, value, place))
        elif key == "version_labels":
            config = replace(config, version_labels=_labels(value, place))
        elif key == "canary":
            config = replace(config, canary=_section(config.canary, value, place))
        elif key == "image":
            config = replace(config, image=_section(config.image or ImageInput(), value, place))
        elif key == "classification":
            classification = _section(config.classification or Classification(), value, place)
            config = replace(config, classification=classification)
        elif key == "shadow":
            above = (config.shadow or ShadowConfig()).below(value)
            config = replace(config, shadow=_section(above, value, place))
        elif key == "golden":
            config = replace(config, golden=_section(config.golden, value, place))
        else:
            raise ConfigError(place, f"unknown; known are {', '.join(_names(ModelConfig))}")
    if config.canary.share < 1 and config.versions in ("latest", "latest:1"):
        detail = f"a canary needs a version beside it, and versions = '{config.versions}' keeps one"
        raise ConfigError(f"{path}: canary.share", detail)
    return config


def _names(of: type) -> list[str]:
    return [each.name for each in fields(of)]


def _section(current: Section, table: Any, place: str) -> Section:
    if not isinstance(table, dict):
        raise ConfigError(place, "must be a table")
    types = {each.name: str(each.type) for each in fields(current)}
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in _names(type(current)):
            raise ConfigError(f"{place}.{key}", f"unknown; known are {', '.join(_names(type(current)))}")
        changes[key] = _typed(value, types[key], f"{place}.{key}")
    changed = replace(current, **changes)
    if problem := changed.problem():
        raise ConfigError(f"{place}.{problem[0]}", problem[1])
    return changed


def _typed(value: Any, wanted: str, place: str) -> Any:
    """The value in the type that its field is annotated with."""
    if wanted.startswith("tuple"):
        lists = {"int": ((int,), "whole numbers"), "float": ((int, float), "numbers")}
        inner, words = lists.get(wanted[6:].partition(",")[0], ((str,), "strings"))
        if isinstance(value, list) and all(type(each) in inner for each in value):
            return tuple(_float(each, place) for each in value) if float in inner else tuple(value)
        raise ConfigError(place, f"must be a list of {words}")
    simple = {"bool": (bool, "true or false"), "str": (str, "a string"), "int": (int, "a whole number")}
    if wanted in simple:
        kind, words = simple[wanted]
        if type(value) is kind:
            return value
        if wanted != "int" or isinstance(value, float):
            raise ConfigError(place, f"must be {words}, not {value!r}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(place, f"must be a number, not {value!r}")
    return _float(value, place)


def _float(value: int | float, place: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(place, "must be a number of common size") from None


def _labels(value: Any, place: str) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ConfigError(place, "must be a table")
    for label, version in value.items():
        if not LABEL.fullmatch(label):
            raise ConfigError(f"{place}.{label}", "a label is letters, digits, '.', '_' and '-'")
        if type(version) is not int or version < 1:
            raise ConfigError(f"{place}.{label}", f"must be a version, not {version!r}")
    return dict(value)


def versions_of(value: Any, place: str) -> str | tuple[int, ...]:
    """Which versions are served, as `ModelConfig` has it.

    Args:
        value: As TOML or JSON has it.
        place: Where it stands, for errors.

    Raises:
        ConfigError: It makes no sense.
    """
    if isinstance(value, str):
        kind, _, count = value.partition(":")
        if value in ("latest", "all") or (kind == "latest" and count.isdigit() and int(count) > 0):
            return value
    elif isinstance(value, list) and value and all(type(each) is int and each > 0 for each in value):
        return tuple(sorted(set(value)))
    raise ConfigError(place, f"must be 'latest', 'latest:N', 'all' or a list of versions, not {value!r}")
