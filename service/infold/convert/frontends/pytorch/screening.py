"""Files are looked through before PyTorch opens them: what would run code is refused.

`torch.export.load` is not safe by itself. It falls back to a full unpickle where a
careful one fails, evaluates the symbolic shapes of a graph as Python, takes any
function below `torch` as an operator, writes the graph's names into source code that
is then compiled, and imports modules that a tree specification names.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from infold.convert.frontends.pytorch.wording import in_brief
from infold.errors import SourceError

__all__ = ["NeedsCodeError", "load_weights_only", "screen_archive", "screen_script"]

DISTRUST = "infold opens such files only in the form that torch.export.save writes"
OPERATOR = re.compile(
    r"torch\.ops\.(aten|prim|prims|higher_order|quantized_decomposed|torchvision)\.(?!__)\w+(\.(?!__)\w+)?"
    r"|torch\._?sym_\w+"
    r"|_operator\.(?!call$|attrgetter$|methodcaller$|itemgetter$)[a-z]\w*"
    r"|math\.[a-z]\w*"
)
# Operators that read and write files.
FILES = re.compile(r"torch\.ops\.\w+\.(save|from_file|load\w*)\b")
NAME = re.compile(r"[\w.$@-]*")
SYMBOL = re.compile(r"[a-z]{1,4}\d+")
# What symbolic shapes are written with: sympy's own words, torch's, and assumptions about symbols.
SYMPY = (
    "Symbol Integer Float Rational Add Mul Pow Abs Max Min Mod floor ceiling Half One Zero NegativeOne "
    "Equality Unequality LessThan StrictLessThan GreaterThan StrictGreaterThan Eq Ne Lt Le Gt Ge And Or Not "
    "Piecewise ExprCondPair true false True False None oo int_oo nan"
)
TORCH = (
    "FloorDiv ModularIndexing Where PythonMod CleanDiv CeilToInt FloorToInt CeilDiv LShift RShift "
    "PowByNatural FloatPow FloatTrueDiv IntTrueDiv IsNonOverlappingAndDenseIndicator TruncToFloat TruncToInt "
    "RoundToInt RoundDecimal ToFloat Identity IntInfinity NegativeIntInfinity"
)
ASSUMED = "positive nonnegative nonzero integer real rational finite zero precision evaluate"
WORDS = frozenset(f"{SYMPY} {TORCH} {ASSUMED}".split())
# Strings that PyTorch keeps for people, or that are quoted wherever they go.
FREE_TEXT = frozenset({"metadata", "as_string", "as_strings", "torch_version", "as_str"})
SPECIFICATIONS = ("in_spec", "out_spec")
# Tree specifications that make PyTorch import a module by name.
IMPORTS = ("default_factory_module", "__enum__")
SCRIPT_FILES = re.compile(r"\b(?:torch|ops\.\w+)\.(save|from_file|load\w*)\(")


class NeedsCodeError(Exception):
    """A pickle that holds more than numbers.

    Attributes:
        what: The class or function it names, as far as known.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(what)


def load_weights_only(source: str, file: Path | io.BytesIO) -> Any:
    """Tensors, numbers and plain containers from a pickle.

    Args:
        source: What to name in errors.
        file: The pickle, in any of the forms of `torch.save`.

    Raises:
        NeedsCodeError: It would have to run code.
        SourceError: It is damaged.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as refused:
        text = str(refused)
        named = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)|\b(?:class|type) ([\w.]+)", text)
        if named or re.search(r"Unsupported (operand|opcode|class)|REDUCE|BUILD", text):
            what = next((group for group in named.groups() if group), "") if named else ""
            raise NeedsCodeError(what or "more than numbers") from refused
        raise SourceError(source, f"a damaged file: {in_brief(refused)}") from refused
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError) as broken:
        raise SourceError(source, f"a damaged file: {in_brief(broken)}") from broken


def screen_archive(path: Path) -> None:
    """Look through every part of a `torch.export` archive.

    Raises:
        SourceError: It is damaged, or opening it would run code.
    """
    with _opened(path) as archive:
        names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        if len(set(names)) < len(names):
            raise SourceError(path, f"refused: several members have the same name; {DISTRUST}")
        described = {}
        for name in names:
            if name.endswith(".json") and not name.partition("/")[2].startswith("extra/"):
                described[name] = _json(path, name, archive.read(name))
        pickled = {entry for content in described.values() for entry in _pickled(content)}
        for name in names:
            inner = name.partition("/")[2] or name
            if inner.startswith("data/aotinductor/") or name.endswith((".so", ".dll", ".pyd", ".dylib")):
                raise SourceError(path, f"refused: it holds compiled code ('{name}'); {DISTRUST}")
            base = name.rpartition("/")[2]
            if name.endswith((".pt", ".pkl", ".pth")) or base in pickled or base.startswith("opaque_obj"):
                _screen_pickle(path, name, archive.read(name))
            if base.startswith("custom_obj"):
                raise SourceError(
                    path, f"refused: it holds an object of a custom class ('{name}'); {DISTRUST}"
                )
    for name, content in described.items():
        _screen_json(path, name, content)


def screen_script(path: Path) -> None:
    """Look through the program of a TorchScript archive.

    Raises:
        SourceError: It is damaged, or reads and writes files.
    """
    with _opened(path) as archive:
        for name in archive.namelist():
            if "code/" in name and name.endswith(".py"):
                found = SCRIPT_FILES.search(archive.read(name).decode("utf-8", "replace"))
                if found:
                    detail = f"refused: its program reads or writes files ('{found[0]}...)' in '{name}')"
                    raise SourceError(path, detail)


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
        damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, RuntimeError, EOFError) as broken:
        raise SourceError(path, f"a damaged archive: {broken}") from broken
    if damaged is not None:
        archive.close()
        raise SourceError(path, f"a damaged archive: '{damaged}' fails its checksum")
    return archive


def _json(path: Path, name: str, content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError as broken:
        raise SourceError(path, f"a damaged archive: '{name}' is no JSON") from broken


def _pickled(content: Any) -> list[str]:
    """Files that a description of weights says are pickles."""
    entries = content.get("config") if isinstance(content, dict) else None
    if not isinstance(entries, dict):
        return []
    each = [entry for entry in entries.values() if isinstance(entry, dict)]
    return [str(entry.get("path_name")) for entry in each if entry.get("use_pickle")]


def _screen_pickle(path: Path, name: str, content: bytes) -> None:
    try:
        load_weights_only(str(path), io.BytesIO(content))
    except NeedsCodeError as no:
        detail = f"refused: opening it would run code (its '{name}' names {no.what}); {DISTRUST}"
        raise SourceError(path, detail) from no


def _screen_json(path: Path, name: str, content: Any, key: str = "") -> None:
    """Look through one description: every string in it has a form that nothing takes for code."""
    if isinstance(content, dict):
        for inner, value in content.items():
            if not NAME.fullmatch(inner):
                _refuse(path, name, "a name that is none", inner)
            if inner not in FREE_TEXT:
                _screen_json(path, name, value, inner)
    elif isinstance(content, list):
        for value in content:
            _screen_json(path, name, value, key)
    elif isinstance(content, str):
        if key in ("target", "as_operator"):
            if not OPERATOR.fullmatch(content) or FILES.match(content):
                _refuse(path, name, "an operator that is none of PyTorch's", content)
        elif key == "expr_str":
            if not _is_symbolic(content):
                _refuse(path, name, "a symbolic shape that is none", content)
        elif key in SPECIFICATIONS:
            if any(word in content for word in IMPORTS):
                _refuse(path, name, "a structure that names a module to import", content)
        elif key != "guards_code" and not NAME.fullmatch(content):
            # Guards are dropped after loading; nothing compiles them before.
            _refuse(path, name, "a name that is none", content)


def _is_symbolic(text: str) -> bool:
    """Whether an expression holds numbers, symbols and torch's own functions only."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return False
    for token in tokens:
        if token.type == tokenize.NAME:
            if token.string not in WORDS and not SYMBOL.fullmatch(token.string):
                return False
        elif token.type == tokenize.OP:
            if token.string in (".", "[", "]", "{", "}", ":", ";", ":=", "@"):
                return False
        elif token.type == tokenize.STRING:
            if not re.fullmatch(r"'[\w.+-]*'", token.string):
                return False
        elif token.type not in (tokenize.NUMBER, tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER):
            return False
    return True


def _refuse(path: Path, name: str, what: str, content: str) -> None:
    raise SourceError(path, f"refused: its '{name}' holds {what}: {content[:60]!r}; {DISTRUST}")
