"""What import-linter cannot see: what is really loaded, and from where."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from infold.fold.deferred import deferred


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in a fresh process after a statement."""
    code = f"{statement}\nimport sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("statement", "strangers"),
    [
        ("import infold", {"numpy", "onnx", "onnxruntime", "fastapi", "typer"}),
        ("import infold.fold", {"onnxruntime", "fastapi", "typer"}),
        ("import infold.runtime", {"onnx", "onnx_ir", "fastapi", "onnxruntime", "google"}),
        ("import infold.serving", {"onnx", "onnx_ir", "fastapi", "typer"}),
        ("import infold.serving.images, infold.serving.classes", {"PIL", "onnx", "fastapi"}),
        (
            "import infold.rest.server",
            {"PIL", "onnx", "onnx_ir", "typer", "google", "fastapi", "opentelemetry"},
        ),
        ("import infold.cluster.replica, infold.cluster.ingress", {"ray", "fsspec", "onnx", "typer"}),
        ("import infold.bench.plot, infold.bench.schedule", {"typer"}),
        ("import infold.tune", {"typer", "fastapi", "onnxruntime"}),
        ("import infold.rest.supervisor", {"onnx", "onnxruntime", "fastapi", "starlette", "uvicorn"}),
        ("import infold.cli.main", {"onnx", "onnxruntime", "fastapi", "numpy"}),
    ],
)
def test_a_floor_loads_nothing_it_must_not_know(statement: str, strangers: set[str]) -> None:
    """Neither half drags in the other, and verbs stay quick to start."""
    assert loaded_by(statement) & strangers == set()


def test_the_package_is_never_loaded_twice() -> None:
    """`service.infold` would be a second copy of every class."""
    assert not [name for name in sys.modules if name == "service" or name.startswith("service.")]


def test_telemetry_is_off_before_onnxruntime_is_loaded() -> None:
    """Its Linux wheel would send some."""
    code = "import infold.runtime, os; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.parametrize("floor", ["infold.fold", "infold.convert"])
def test_sympy_waits_until_it_is_asked_for(floor: str) -> None:
    """Importing it takes longer than folding; onnx_ir still computes with symbolic lengths."""
    code = f"""
import sys, {floor}, onnx_ir
print("sympy.core" in sys.modules, onnx_ir.SymbolicDim("N") + 1, "sympy.core" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "N", "+", "1", "True"]


def test_sympy_that_is_loaded_already_stays() -> None:
    """Whoever imported onnx_ir before infold keeps the modules there are."""
    code = "import onnx_ir, sympy, infold.fold; print(sympy is sys.modules['sympy'], sympy.Symbol('N'))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "N"]


def test_a_deferred_module_that_is_used_at_once_is_loaded_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As would happen if onnx_ir began to need sympy while it is imported."""
    (tmp_path / "late_module.py").write_text("number = 3")
    (tmp_path / "eager_module.py").write_text("import late_module; double = 2 * late_module.number")
    monkeypatch.syspath_prepend(tmp_path)
    before = list(sys.meta_path)
    with deferred("late_module", "no_such_module"):
        assert importlib.import_module("eager_module").double == 6
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("no_such_module")
    assert sys.meta_path == before
