"""`config.pbtxt`: a model's configuration as its owner wrote it for Triton, read and understood.

protobuf's own parsers read it, as text or as JSON. The file may come from
anywhere: its size is bounded before it is parsed, and whatever is wrong with it
is a ConfigError that names the line or the field.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

from infold.errors import ConfigError
from infold.runtime.triton_meaning import understood
from infold.runtime.triton_schema import PACKAGE, model_config
from infold.runtime.triton_words import TritonConfig

__all__ = ["CONFIG_FILE", "parse_triton_json", "read_triton_config"]

CONFIG_FILE = "config.pbtxt"
LIMIT_BYTES = 2**20
DETAIL_LENGTH = 300


def read_triton_config(path: Path) -> TritonConfig | None:
    """Read a `config.pbtxt`; None where there is no such file.

    Raises:
        ConfigError: It is too large, no protobuf text, or asks for what is not served.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
            raise ConfigError(str(path), "is no file")
        with path.open("rb") as file:
            content = file.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as failure:
        raise ConfigError(str(path), failure.strerror or str(failure)) from failure
    place = str(path)
    _check_length(len(content), place)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as broken:
        raise ConfigError(place, f"not valid protobuf text: {broken}") from broken
    return parse_triton_text(text, place)


def parse_triton_text(text: str, place: str) -> TritonConfig:
    """What `read_triton_config` would read from a file that held this text.

    Raises:
        ConfigError: As there.
    """
    from google.protobuf import text_format

    message = model_config()()
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as broken:
        line = broken.GetLine()
        where = place if line is None else f"{place}: line {line}"
        raise ConfigError(where, _plain(str(broken))) from broken
    except (ValueError, RecursionError) as broken:
        raise ConfigError(place, f"not valid protobuf text: {_plain(str(broken))}") from broken
    return understood(message, place)


def parse_triton_json(text: str, place: str) -> TritonConfig:
    """Read a configuration as JSON, with names of fields as protobuf writes them or in camel case.

    Args:
        text: An object of Triton's ModelConfig.
        place: Where it stands, for errors.

    Raises:
        ConfigError: As `read_triton_config`.
    """
    from google.protobuf import json_format

    _check_length(len(text), place)
    if not text.lstrip().startswith("{"):
        raise ConfigError(place, "is no JSON object")
    message = model_config()()
    try:
        json_format.Parse(text, message)
    except (json_format.ParseError, ValueError, RecursionError) as broken:
        raise ConfigError(place, _plain(str(broken).partition("\n")[0])) from broken
    return understood(message, place)


def _check_length(length: int, place: str) -> None:
    if length > LIMIT_BYTES:
        raise ConfigError(place, f"larger than {LIMIT_BYTES} bytes")


def _plain(detail: str) -> str:
    """What protobuf says, without its own place and the whole line in front, and not at any length."""
    detail = re.sub(r"\A\d+:\d+ : (?:'.*': (?=[A-Z]))?", "", detail, flags=re.DOTALL)
    unknown = re.search(
        rf'Message type "{re.escape(PACKAGE)}\.(\w+)" has no field named "([^"]{{1,100}})', detail
    )
    if unknown is not None:
        return f"unknown field '{unknown[2]}' of {unknown[1]}"
    detail = " ".join(detail.replace(f"{PACKAGE}.", "").split()).rstrip(".")
    return detail if len(detail) <= DETAIL_LENGTH else f"{detail[:DETAIL_LENGTH]}..."
