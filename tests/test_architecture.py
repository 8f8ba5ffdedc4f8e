"""What import-linter cannot see: what is really loaded, and from where."""

import subprocess
import sys

import pytest


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
        ("import infold.runtime", {"onnx", "onnx_ir", "fastapi", "onnxruntime"}),
        ("import infold.serving", {"onnx", "onnx_ir", "fastapi", "typer"}),
        ("import infold.rest.server", {"onnx", "onnx_ir", "typer"}),
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
