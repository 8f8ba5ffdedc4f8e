"""The command line as a user meets it: exit codes, one-line errors, what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from command_line import assert_error, infold
from graphs import conv_norm, model, norm, normal, relu_only
from infold import __version__

DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.onnx"


def save(proto: onnx.ModelProto, folder: Path, name: str = "source.onnx") -> Path:
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def assert_usage_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """A call that makes no sense: 2, an explanation, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr and done.stdout == ""
    for word in words:
        assert word in done.stderr


def kept_norm() -> onnx.ModelProto:
    return model(
        "g (float[N,4] x) => (float[N,4] y) { [bn] y = BatchNormalization (x, gamma, beta, mean, variance) }",
        norm(4),
    )


def test_convert_digits(tmp_path: Path) -> None:
    """The shipped example: a table of five folds, the verdict, where it was written."""
    done = infold("convert", DIGITS, tmp_path / "digits.onnx")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["site", "outcome", "into", "/", "why", "at", "across"]
    assert [line.split()[:3] for line in lines[1:6]] == [
        [f"{block}/bn", "folded", "into"] for block in ("stem", "body", "depthwise", "pointwise", "head")
    ]
    assert lines[6].startswith("5 of 5 folded, 0 kept; verified on 8 samples, max relative error ")
    assert lines[7] == f"wrote {tmp_path / 'digits.onnx'}"
    onnx.checker.check_model(str(tmp_path / "digits.onnx"), full_check=True)
    assert json.loads((tmp_path / "digits.fold-report.json").read_text())["folded"] == 5


def test_convert_into_a_repository(tmp_path: Path) -> None:
    """`--repository` and `--name` write the next version."""
    source = save(relu_only(), tmp_path)
    done = infold("convert", source, "--repository", tmp_path / "models", "--name", "net")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "no norms found; verified on 8 samples, max relative error 0.0e+00",
        f"wrote {tmp_path / 'models' / 'net' / '1' / 'model.onnx'}",
    ]


def test_quiet_prints_nothing(tmp_path: Path) -> None:
    """Only the exit code speaks."""
    done = infold("convert", "--quiet", "--no-verify", save(conv_norm(), tmp_path), tmp_path / "f.onnx")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "f.onnx").exists()


def test_json_is_the_report(tmp_path: Path) -> None:
    """Standard output is the same document that is written beside the model, and --no-verify is in it."""
    done = infold("convert", "--json", "--no-verify", save(conv_norm(), tmp_path), tmp_path / "f.onnx")
    assert done.returncode == 0
    facts = json.loads(done.stdout)
    assert facts == json.loads((tmp_path / "f.fold-report.json").read_text())
    assert facts["proof"] == {"verified": False, "why": "skipped by --no-verify"}


def test_a_kept_norm_is_no_failure_unless_strict(tmp_path: Path) -> None:
    """0 by default; with --strict 1, the files written all the same."""
    source = save(kept_norm(), tmp_path)
    assert infold("convert", "--no-verify", source, tmp_path / "a.onnx").returncode == 0
    done = infold("convert", "--no-verify", "--strict", source, tmp_path / "b.onnx")
    assert done.returncode == 1 and done.stderr == ""
    assert "graph-input" in done.stdout and "0 of 1 folded, 1 kept; not verified" in done.stdout
    assert (tmp_path / "b.onnx").exists() and (tmp_path / "b.fold-report.json").exists()


def test_strict_is_content_when_everything_folds(tmp_path: Path) -> None:
    """Nothing kept, nothing to complain of."""
    done = infold("convert", "--no-verify", "--strict", save(conv_norm(), tmp_path), tmp_path / "f.onnx")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no such file"), (b"", "the file is empty"), (b"hello", "not an ONNX file")],
    ids=["missing", "empty", "text"],
)
def test_bad_sources(tmp_path: Path, content: bytes | None, words: str) -> None:
    """One line that names the file."""
    if content is not None:
        (tmp_path / "source.onnx").write_bytes(content)
    done = infold("convert", tmp_path / "source.onnx", tmp_path / "f.onnx")
    assert_error(done, 1, f"infold: {tmp_path / 'source.onnx'}: ", words)


def test_bad_destinations(tmp_path: Path) -> None:
    """The source itself, another ending."""
    source = save(conv_norm(), tmp_path)
    assert_error(infold("convert", source, source), 1, "never overwrites")
    assert_error(infold("convert", source, tmp_path / "f.pb"), 1, "must end in .onnx")


def test_bad_samples(tmp_path: Path) -> None:
    """A file that holds another input; a shape that does not fit."""
    source = save(conv_norm(), tmp_path)
    np.savez(tmp_path / "s.npz", z=normal(1))
    done = infold("convert", source, tmp_path / "f.onnx", "--samples", tmp_path / "s.npz")
    assert_error(done, 1, "no input 'z'; it has x")
    done = infold("convert", source, tmp_path / "f.onnx", "--shape", "x=1,2,3")
    assert_error(done, 1, "--shape x")


def test_samples_that_are_no_npz(tmp_path: Path) -> None:
    """A single saved array is told apart in one line too."""
    np.save(tmp_path / "s.npy", normal(1, 2, 6, 6))
    done = infold(
        "convert", save(conv_norm(), tmp_path), tmp_path / "f.onnx", "--samples", tmp_path / "s.npy"
    )
    assert_error(done, 1, "npz")


@pytest.mark.parametrize(
    "arguments",
    [
        ("convert",),
        ("convert", "a.onnx"),
        ("convert", "a.onnx", "b.onnx", "--frobnicate"),
        ("convert", "a.onnx", "b.onnx", "c.onnx"),
        ("convert", "a.onnx", "b.onnx", "--name", "net"),
        ("convert", "a.onnx", "b.onnx", "--repository", "models", "--name", "net"),
        ("convert", "a.onnx", "--repository", "models"),
        ("convert", "a.onnx", "b.onnx", "--shape", "x"),
        ("convert", "a.onnx", "b.onnx", "--shape", "=1,2"),
        ("convert", "a.onnx", "b.onnx", "--shape", "x=1,-2"),
        ("convert", "a.onnx", "b.onnx", "--shape", "x=a"),
        ("convert", "a.onnx", "b.onnx", "--from", "caffe"),
        ("verify", "a.onnx"),
        ("reestimate", "a.onnx", "b.onnx"),
        ("reestimate", "a.onnx", "b.onnx", "--calibration", "s.npz", "--momentum", "0.9"),
        ("reestimate", "a.onnx", "b.onnx", "--calibration", "s.npz", "--momentum", "keras:2"),
        ("inspect",),
        ("fold", "a.onnx"),
        ("--frobnicate",),
    ],
    ids=" ".join,
)
def test_calls_that_make_no_sense(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Unknown flags, missing or superfluous arguments: exit code 2 and a word of help."""
    from unittest.mock import patch

    from infold.cli.main import main

    with patch.object(sys, "argv", ["infold", *arguments]), pytest.raises(SystemExit) as left:
        main()
    printed = capsys.readouterr()
    assert left.value.code == 2
    assert printed.out == "" and "Error" in printed.err and "Traceback" not in printed.err


def test_an_unknown_flag_exits_2() -> None:
    """... from a real process as well."""
    assert_usage_error(infold("convert", "a.onnx", "b.onnx", "--frobnicate"), "--frobnicate")


def test_version() -> None:
    """One line."""
    done = infold("--version")
    assert (done.returncode, done.stdout) == (0, f"infold {__version__}\n")


def test_help_names_every_verb() -> None:
    """So that nobody has to guess."""
    done = infold("--help")
    assert done.returncode == 0
    for verb in ("convert", "inspect", "verify"):
        assert verb in done.stdout


def test_starting_up_loads_no_framework() -> None:
    """`infold --help` imports neither onnx nor onnxruntime: verbs load their floor when they run."""
    code = (
        "import sys; sys.argv = ['infold', '--version']\n"
        "from infold.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'onnx', 'onnx_ir', 'onnxruntime', 'fastapi', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- verify ---------------------------------------------------------------------------------------


def test_verify_equal_files(tmp_path: Path) -> None:
    """A table of what was compared, the oracle, the verdict."""
    source, target = save(conv_norm(), tmp_path), tmp_path / "f.onnx"
    infold("convert", "--no-verify", source, target)
    done = infold("verify", source, target)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["site", "bn"], ["output", "y"]]
    assert all(line.endswith("ok") for line in lines[1:3])
    assert lines[-1] == "equal within rounding"
    assert lines[-2].startswith("oracle: onnxruntime")


def other_bias(value: float) -> onnx.ModelProto:
    proto = conv_norm()
    for tensor in proto.graph.initializer:
        if tensor.name == "beta":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, value, np.float32), "beta"))
    return proto


def test_verify_unequal_files(tmp_path: Path) -> None:
    """Exit code 1 and where it begins."""
    done = infold("verify", save(conv_norm(), tmp_path), save(other_bias(3.0), tmp_path, "other.onnx"))
    assert done.returncode == 1 and done.stderr == ""
    assert "OFF" in done.stdout and "the first norm that is off is 'bn'" in done.stdout


def test_verify_json_is_json_even_where_a_number_is_not_finite(tmp_path: Path) -> None:
    """NaN on one side: no `Infinity`, which no JSON parser has to understand."""
    done = infold(
        "verify", "--json", save(conv_norm(), tmp_path), save(other_bias(float("nan")), tmp_path, "nan.onnx")
    )
    assert done.returncode == 1

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    facts = json.loads(done.stdout, parse_constant=refuse)
    assert facts["passed"] is False
    assert [each["value"] for each in facts["outputs"]] == ["y"]


def test_verify_quietly(tmp_path: Path) -> None:
    """Nothing but the exit code."""
    source = save(relu_only(), tmp_path)
    done = infold("verify", "-q", source, source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_verify_files_that_cannot_be_compared(tmp_path: Path) -> None:
    """Different inputs are one line, not a table."""
    done = infold("verify", save(conv_norm(), tmp_path), save(conv_norm(dtype="float16"), tmp_path, "o.onnx"))
    assert_error(done, 1, "inputs differ")


# -- inspect --------------------------------------------------------------------------------------


def test_inspect_digits() -> None:
    """Five norms with their ranges, all of which would fold."""
    done = infold("inspect", DIGITS)
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("norm ")
    assert len([line for line in lines if "/bn" in line and "yes" in line]) == 5


def test_inspect_json() -> None:
    """For machines, without non-numbers."""
    facts = json.loads(infold("inspect", "--json", DIGITS).stdout)
    assert facts["model"] == "digits.onnx"
    assert [each["channels"] for each in facts["norms"]] == [32, 48, 48, 64, 64]


def test_inspect_a_model_without_norms(tmp_path: Path) -> None:
    """Said in words."""
    assert infold("inspect", save(relu_only(), tmp_path)).stdout == "no norms found\n"


def test_inspect_a_file_that_is_missing(tmp_path: Path) -> None:
    """The same one-line error as everywhere."""
    assert_error(infold("inspect", tmp_path / "missing.onnx"), 1, "no such file")


def test_a_division_by_zero_warns_nobody(tmp_path: Path) -> None:
    """A doubtful constant is a matter for the table; numpy's own warnings do not leak out."""
    zeros = np.array([1, 0, 1, 1], np.float32)
    proto = model(
        "g (float[N,3] x) => (float[N,4] y) { h = Gemm (x, w)  s = Div (h, k)  y = Add (s, k) }",
        {"w": normal(3, 4), "k": zeros},
    )
    done = infold("inspect", save(proto, tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "invalid-statistics" in done.stdout


def test_reestimate_tells_how_far_each_norm_moved(tmp_path: Path) -> None:
    """As a table, or for machines; the file it names converts."""
    source = save(conv_norm(), tmp_path)
    np.savez(tmp_path / "s.npz", x=np.asarray(normal(20, 2, 6, 6), np.float32))
    call = ("reestimate", str(source), str(tmp_path / "new.onnx"), "--calibration", str(tmp_path / "s.npz"))
    shown = infold(*call)
    assert shown.returncode == 0, shown.stderr
    header = "norm channels numbers seen mean moved by (deviations) variance, new over old"
    assert " ".join(shown.stdout.splitlines()[0].split()) == header
    assert "1 norm re-estimated on 20 samples" in shown.stdout
    facts = json.loads(infold(*call, "--json", "--momentum", "pytorch:0.1").stdout)
    assert [each["name"] for each in facts["norms"]] == ["bn"]
    assert infold("convert", str(tmp_path / "new.onnx"), str(tmp_path / "folded.onnx")).returncode == 0
