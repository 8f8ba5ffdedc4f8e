"""First loads in a child process: whatever a file does there, the version has failed and nothing else."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from graphs import conv_norm, model, normal
from infold.errors import ConfigError, DeviceError, GoldenError, InfoldError, RuntimeCrashError, SessionError
from infold.runtime import Cache, Device, ModelConfig, Placement, Session, SessionConfig
from infold.runtime.prepared import FACTS, GRAPH
from infold.runtime.throwaway import Throwaway
from infold.runtime.triton_config import read_triton_config
from infold.serving import ModelRepository, trial
from infold.serving.loading import Loaded, load
from infold.serving.repository import ModelVersion
from infold.serving.trial import Trial

CPU = Placement(Device.CPU, "asked for")
# What runs before the child's own main: it makes measurements short, and settled on a busy machine.
QUICK = "from infold.serving import preparing as p; p.MEASURE_S = p.WIDE_S = p.QUIET = 0.0; "
OPEN_LENGTHS = "g (float[N,M] x) => (float[N,K] y) <int64[2] shape = {-1, 4}> { y = Reshape (x, shape) }"


class Tried:
    """Loads by way of a child, which is counted.

    Attributes:
        children: How many were started.
        prelude: Python that the next ones run before they obey.
        log: Path of a file that a prelude may write.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "models" / "m" / "1"
        self.folder.mkdir(parents=True)
        self.path = self.folder / "model.onnx"
        self.cache = Cache(folder / "cache")
        self.trial = Trial(120)
        self.children: list[int] = []
        self.prelude = QUICK

        def started(entry: str) -> Throwaway:
            child = Throwaway(self.prelude + entry)
            self.children.append(child.pid)
            return child

        monkeypatch.setattr(trial, "Throwaway", started)

    def put(self, proto: onnx.ModelProto | bytes) -> None:
        """What is loaded next."""
        self.path.write_bytes(proto if isinstance(proto, bytes) else proto.SerializeToString())

    def load(self, **config: Any) -> Loaded:
        """Load what lies there."""
        version = self.version(**config)
        return load(version, CPU, 2, self.cache, self.trial)

    def version(self, **config: Any) -> ModelVersion:
        """What lies there."""
        root = self.folder.parent.parent
        stamp = ModelRepository(root).versions("m")[0].stamp if self.path.is_file() else ()
        triton = read_triton_config(self.folder.parent / "config.pbtxt")
        return ModelVersion("m", 1, self.path, ModelConfig(**config), stamp, triton)

    def fails(self, **config: Any) -> str:
        """Why what lies there does not load, without its path."""
        with pytest.raises(InfoldError) as failed:
            self.load(**config)
        assert self.leaves_nothing()
        return str(failed.value).removeprefix(f"{self.path}: ")

    def leaves_nothing(self) -> bool:
        """No process, and nothing unfinished in the cache."""
        assert self.cache.folder is not None
        found = [".new-" in each or ".facts." in each for each in _files(self.cache.folder)]
        return not any(found) and not any(Path(f"/proc/{pid}").exists() for pid in self.children)


def _files(folder: Path) -> list[str]:
    """Paths of all that is in a folder, which others may change meanwhile."""
    return [f"{above}/{name}" for above, folders, files in os.walk(folder) for name in (*folders, *files)]


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tried:
    return Tried(tmp_path, monkeypatch)


# -- what passes ----------------------------------------------------------------------------------


def test_a_version_is_tried_once(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process only opens what the child has prepared, then and at every start after that."""
    opened: list[Path] = []
    init = Session.__init__

    def noted(session: Session, path: Path, *more: Any, **how: Any) -> None:
        opened.append(path)
        init(session, path, *more, **how)

    monkeypatch.setattr(Session, "__init__", noted)
    tried.put(conv_norm(16))
    first = tried.load()
    assert len(tried.children) == 1
    for cache in (tried.cache, Cache(tried.cache.folder)):
        tried.cache = cache
        assert tried.load().plan == first.plan
    assert len(tried.children) == 1
    assert {each.name for each in opened} == {GRAPH} and tried.path not in opened
    x = {"x": normal(3, 2, 6, 6)}
    assert (first.session.run(x)["y"] == Session(tried.path).run(x)["y"]).all()
    assert tried.leaves_nothing()


def test_a_version_that_cannot_be_prepared_is_tried_once_too(tried: Tried) -> None:
    """Then this process opens it as it lies."""
    tried.put(model(OPEN_LENGTHS))
    for _ in range(3):
        assert tried.load().session.run({"x": normal(3, 4)})["y"].shape == (3, 4)
    assert len(tried.children) == 1


def test_a_version_whose_runs_differ_is_measured_and_tried_once(tried: Tried) -> None:
    """Nothing is kept of it but what was found."""
    tried.put(model("g (float[N,2] x) => (float[N,2] y) { y = RandomNormalLike (x) }"))
    plans = [tried.load().plan for _ in range(3)]
    assert plans[0] == plans[1] == plans[2]
    assert len(tried.children) == 1


def test_without_a_cache_every_load_is_a_trial(tried: Tried) -> None:
    """There is nothing to remember it in."""
    tried.cache.folder = None
    tried.put(conv_norm(4))
    for _ in range(2):
        assert tried.load().session.run({"x": normal(1, 2, 6, 6)})["y"].shape == (1, 4, 6, 6)
    assert len(tried.children) == 2


@pytest.mark.parametrize("what", ["graph", "weights", "threads", "golden", "config.pbtxt"])
def test_what_has_changed_is_tried_again(tried: Tried, what: str) -> None:
    """All that the trial runs; what is only said of serving is not."""
    proto = conv_norm(16)
    onnx.save(proto, str(tried.path), save_as_external_data=True, location="w.bin", size_threshold=0)
    tried.load()
    tried.load(session=SessionConfig(wide="always", runs=3))
    (tried.folder / "notes.txt").write_text("anything")
    tried.load()
    assert len(tried.children) == 1
    config: dict[str, Any] = {}
    match what:
        case "graph":
            tried.put(conv_norm(8))
        case "weights":
            content = bytearray((tried.folder / "w.bin").read_bytes())
            (tried.folder / "w.bin").write_bytes(content)
            os.utime(tried.folder / "w.bin", (1, 1))
        case "threads":
            config["session"] = SessionConfig(intra_op_threads=2)
        case "golden":
            np.savez(tried.folder / "golden.npz", **{"in.x": normal(2, 2, 6, 6)})
        case "config.pbtxt":
            one = 'key: "x" value { data_type: TYPE_FP32 dims: [2,6,6] zero_data: true }'
            text = f'max_batch_size: 4 model_warmup {{ name: "w" inputs {{ {one} }} }}'
            (tried.folder.parent / "config.pbtxt").write_text(text)
    for _ in range(2):
        tried.load(**config)
    assert len(tried.children) == 2


def damaged(entry: Path, damage: str) -> None:
    """An entry of the cache is not what it was."""
    facts, graph = entry / FACTS, entry / GRAPH
    match damage:
        case "facts":
            facts.write_text("{")
        case "other facts":
            facts.write_text("[1]")
        case "odd facts":
            told = {
                key: value if key in ("sizes", "passed") else 3
                for key, value in json.loads(facts.read_text()).items()
            }
            facts.write_text(json.dumps(told))
        case "no mark":
            facts.write_text(json.dumps(json.loads(facts.read_text()) | {"passed": []}))
        case "graph":
            graph.write_bytes(b"\xff" * graph.stat().st_size)
        case "cut graph":
            os.truncate(graph, 10)


@pytest.mark.parametrize(
    ("damage", "is_kept"),
    [
        ("facts", True), ("facts", False), ("other facts", True), ("odd facts", True), ("odd facts", False),
        ("no mark", True), ("no mark", False), ("graph", True), ("cut graph", True),
    ],
)  # fmt: skip
def test_a_damaged_memory_is_none(tried: Tried, damage: str, is_kept: bool) -> None:
    """The version is tried again, never served untried."""
    tried.put(conv_norm(16) if is_kept else model(OPEN_LENGTHS))
    tried.load()
    assert tried.cache.folder is not None
    (facts,) = tried.cache.folder.glob(f"*/{FACTS}")
    damaged(facts.parent, damage)
    for _ in range(2):
        tried.load()
    assert len(tried.children) == 2


def test_what_the_child_logs_is_logged_here(tried: Tried, caplog: pytest.LogCaptureFixture) -> None:
    """As its own line, with its facts; the plan is told once."""
    caplog.set_level(logging.INFO)
    tried.put(model(OPEN_LENGTHS))
    tried.load()
    (record,) = [each for each in caplog.records if each.getMessage() == "not measured"]
    assert (record.name, record.levelno) == ("infold.serving.preparing", logging.INFO)
    assert record.__dict__["model"] == "m" and "Reshape" in record.__dict__["reason"]
    assert sum(each.getMessage() == "plan chosen" for each in caplog.records) == 1


# -- what fails -----------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"garbage", b"\x08\x08"])
def test_what_is_no_model_is_told_as_ever(tried: Tried, content: bytes) -> None:
    """One line that names the file; and tried again when it is asked for again."""
    tried.put(content)
    for _ in range(2):
        with pytest.raises(SessionError, match=str(tried.path)) as failed:
            tried.load()
        assert not isinstance(failed.value, RuntimeCrashError)
    assert len(tried.children) == 2
    assert tried.leaves_nothing()


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the trial of it was ended by SIGSEGV"),
        ("os.abort()", "the trial of it was ended by SIGABRT"),
        ("os._exit(3)", "the trial of it was ended with exit code 3"),
        (
            "print('terminate called: oh', file=sys.stderr); os.abort()",
            "ended by SIGABRT; terminate called: oh",
        ),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("raise SystemError", "SystemError: "),
        ("os.write(7, b'')", "Bad file descriptor"),
    ],
)
def test_a_version_that_crashes_has_failed(tried: Tried, does: str, reason: str) -> None:
    """With the cause."""
    tried.put(conv_norm(4))
    tried.prelude += DIE.format(what="infold.serving.tried.prepare", does=does)
    assert reason in tried.fails()


DIE = """import os, signal, sys, infold.serving.tried, infold.runtime.session
def die(*_, **more):
    {does}
{what} = die
"""


@pytest.mark.parametrize(
    "what",
    [
        "infold.runtime.session.Session.__init__",
        "infold.runtime.session.Session.run",
        "infold.serving.tried.check_golden",
    ],
)
def test_a_version_that_has_crashed_is_never_opened_here(
    tried: Tried, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Wherever it did: it is tried again whenever it is asked for, until it passes."""
    np.savez(tried.folder / "golden.npz", **{"in.x": normal(2, 2, 6, 6)})
    tried.put(conv_norm(4))
    quick, tried.prelude = tried.prelude, DIE.format(what=what, does="os.kill(os.getpid(), 11)")
    with monkeypatch.context() as patched:
        patched.delattr(Session, "__init__")
        for _ in range(2):
            assert "ended by SIGSEGV" in tried.fails()
    assert len(tried.children) == 2
    tried.prelude = quick
    tried.load()
    assert len(tried.children) == 3


def test_a_version_that_hangs_has_failed(tried: Tried) -> None:
    """A graph that goes round for ever, on a row of zeros."""
    text = """g (int64[1] x) => (float y) <bool yes = {1}, float zero = {0}, int64 most = {1000000000000}> {
        count = Add (most, x)  n = Squeeze (count)
        y = Loop (n, yes, zero) <body = b (int64 i, bool go, float s) => (bool again, float t)
            <float one = {1}> { again = Identity (go)  t = Add (s, one) }> }"""
    tried.put(model(text))
    tried.trial = Trial(3)
    assert tried.fails() == "the trial of it took longer than 3 s"


@pytest.mark.parametrize(
    "text",
    [
        "{ s = Add (x, size)  a = ConstantOfShape (s)  y = ReduceSum <keepdims=0> (a) }",
        "{ s = Add (x, size)  a = ConstantOfShape (s)  b = Exp (a)  y = ReduceMean <keepdims=0> (b) }",
    ],
)
def test_a_version_that_takes_all_memory_has_failed(tried: Tried, text: str) -> None:
    """A few bytes that ask for 32 GiB."""
    tried.put(model(f"g (int64[2] x) => (float y) {text}", {"size": np.array([2**17, 2**16])}))
    tried.trial = Trial(120, memory_bytes=2**29)
    assert tried.fails() == "the trial of it took more than 512 MiB"


def test_python_s_own_want_of_memory_is_told_alike(tried: Tried) -> None:
    """And that of native code that does not catch it."""
    tried.put(conv_norm(4))
    tried.trial = Trial(120, memory_bytes=2**29)
    prelude, patch = tried.prelude, "import infold.serving.tried as t, os, sys\n"
    tried.prelude = prelude + patch + "t.prepare = lambda *_: bytes(2**30)\n"
    assert tried.fails() == "the trial of it took more than 512 MiB"
    dies = "def die(*_):\n    print('what(): std::bad_alloc', file=sys.stderr)\n    os.abort()\n"
    tried.prelude = prelude + patch + dies + "t.prepare = die\n"
    assert tried.fails() == "the trial of it took more than 512 MiB"


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ("DeviceError('cuda', 'is not there')", DeviceError),
        ("ConfigError('model.toml: a', 'is not b')", ConfigError),
        ("GoldenError('golden.npz: out.y', '1 is not 2')", GoldenError),
        ("NoKernelError('m', 'Foo')", SessionError),
    ],
)
def test_errors_come_back_as_what_they_are(tried: Tried, raised: str, kind: type[InfoldError]) -> None:
    """With what they say."""
    import infold.errors

    tried.put(conv_norm(4))
    tried.prelude += (
        "import infold.serving.tried as t\nfrom infold.errors import *\n"
        f"def fail(*_):\n    raise {raised}\nt.prepare = fail\n"
    )
    with pytest.raises(kind) as failed:
        tried.load()
    expected = eval(raised, vars(infold.errors))
    assert type(failed.value) is type(expected)
    assert str(failed.value) == str(expected)
    assert vars(failed.value) == vars(expected)


@pytest.mark.parametrize(
    "said",
    [
        "what", "{}", "[]", "3", '{"found": {}}', '{"found": 3}', '{"found": {"key": 1}}', '{"error": []}',
        '{"error": ["a", "b"]}', '{"log": 3}', '{"log": []}', '{"bound": "x"}', '{"bound": 1}', "",
        "\\xff\\xfe", '{"found": {"key": "k", "is_kept": 0, "measured": {"narrow": []}}}',
    ],
)  # fmt: skip
def test_a_child_that_has_lost_its_mind_is_not_believed(tried: Tried, said: str) -> None:
    """A file may have taken it over: what it says is held against what it may say."""
    tried.put(conv_norm(4))
    tried.prelude = f"import os\nos.write(1, b'''{said}\\n''')\nos._exit(0)\n"
    assert tried.fails().startswith("the trial of it ")


def test_a_child_cannot_log_as_somebody_else(tried: Tried, caplog: pytest.LogCaptureFixture) -> None:
    """Nor name facts that a record has, which would be an error here."""
    caplog.set_level(logging.INFO)
    tried.put(conv_norm(4))
    lines = [
        ["uvicorn", 20, "a", {}],
        ["infold.y", 20, "a", {}],
        ["infold.serving.trial", 20, "%s %d", {"message": "b", "name": "c", "args": 1, "f": 2}],
    ]
    text = "".join(json.dumps({"log": line}) + "\\n" for line in lines)
    tried.prelude = f"import os\nos.write(1, b'''{text}''')\nos._exit(0)\n"
    assert tried.fails().startswith("the trial of it ")
    (record,) = (
        each for each in caplog.records if each.name in ("uvicorn", "infold.y", "infold.serving.trial")
    )
    assert record.getMessage() == "%s %d" and record.__dict__["f"] == 2


def test_a_child_that_does_not_start_is_told(tried: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    """No process is left to be had."""

    def refuse(entry: str) -> Throwaway:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(trial, "Throwaway", refuse)
    tried.put(conv_norm(4))
    assert tried.fails() == "the trial of it does not start: Resource temporarily unavailable"


# -- files from strangers -------------------------------------------------------------------------


def weights_in(location: str, *, backwards: bool = False) -> bytes:
    """A model whose weights are said to lie somewhere."""
    proto = conv_norm(16)
    for tensor in proto.graph.initializer:
        onnx.external_data_helper.set_external_data(tensor, location, offset=0, length=4)
        tensor.ClearField("raw_data")
        tensor.ClearField("float_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
    content = proto.SerializeToString()
    if backwards:  # a value before its key, which a search for the usual bytes would not find
        text = location.encode()
        usual = b"\x0a\x08location\x12" + bytes([len(text)]) + text
        assert usual in content
        content = content.replace(usual, b"\x12" + bytes([len(text)]) + text + b"\x0a\x08location")
    return content


@pytest.mark.parametrize(
    ("location", "problem", "backwards"),
    [
        ("/etc/passwd", "an absolute path", False),
        ("/etc/passwd", "an absolute path", True),
        ("../../../secret", "leads out of the model's folder", False),
        ("../../../secret", "leads out of the model's folder", True),
        ("link", "is a link that leads out of the repository", True),
        ("folder", "is no plain file", False),
        ("pipe", "is no plain file", False),
        ("*/_ORT_MEM_ADDR_/*", "is no file", False),
    ],
)
def test_weights_that_lead_elsewhere_are_refused(
    tried: Tried, tmp_path: Path, location: str, problem: str, backwards: bool
) -> None:
    """Before the runtime opens them."""
    (tmp_path / "secret").write_bytes(bytes(100_000))
    (tried.folder / "link").symlink_to("/etc/passwd")
    (tried.folder / "folder").mkdir()
    os.mkfifo(tried.folder / "pipe")
    tried.put(weights_in(location, backwards=backwards))
    tried.prelude += "import infold.runtime.session as s\ns.onnxruntime = None\n"
    assert tried.fails() == f"weights in '{location}': {problem}" + (
        "; it must be one below the model's folder" if problem.startswith("an abs") else ""
    )


def test_weights_that_were_swapped_for_a_link_after_their_trial_are_refused(tried: Tried) -> None:
    """Where nothing is prepared, the files are looked at again."""
    text = OPEN_LENGTHS.replace("y = Reshape (x, shape)", "a = Reshape (x, shape)  y = Add (a, w)")
    proto = model(text, {"w": normal(1, 4)})
    onnx.save(proto, str(tried.path), save_as_external_data=True, location="w.bin", size_threshold=0)
    tried.load()
    about = (tried.folder / "w.bin").stat()
    outside = tried.folder.parents[2] / "outside.bin"
    shutil.copy2(tried.folder / "w.bin", outside)
    (tried.folder / "w.bin").unlink()
    (tried.folder / "w.bin").symlink_to(outside)
    os.utime(outside, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert tried.fails() == "weights in 'w.bin': is a link that leads out of the repository"


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_a_model_that_is_no_plain_file_here_is_refused(tried: Tried, tmp_path: Path, what: str) -> None:
    """Without a child."""
    match what:
        case "link":
            (tmp_path / "secret.onnx").write_bytes(conv_norm(4).SerializeToString())
            tried.path.symlink_to(tmp_path / "secret.onnx")
        case "pipe":
            os.mkfifo(tried.path)
        case "folder":
            tried.path.mkdir()
    assert tried.fails() == (
        "is a link that leads out of the repository" if what == "link" else "is no plain file"
    )
    assert not tried.children


@pytest.mark.parametrize("field", ["dims", "raw", "offset", "length", "negative", "initializer"])
def test_declarations_beyond_all_measure_fail_the_version(tried: Tried, field: str) -> None:
    """2^60 of something: by an error of the runtime or the end of the child, whichever comes."""
    proto = conv_norm(16)
    tensor = proto.graph.initializer[0]
    (tried.folder / "w.bin").write_bytes(bytes(100))
    match field:
        case "dims":
            tensor.dims[0] = 2**60
        case "raw":
            tensor.dims[:] = [2**62, 2**62]
        case "offset" | "length" | "negative":
            more = {"offset": 2**60} if field == "offset" else {"length": 2**60 if field == "length" else -5}
            onnx.external_data_helper.set_external_data(tensor, "w.bin", **more)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
        case "initializer":
            content = proto.SerializeToString()
            tried.put(content[:-3] + b"\x2a\xff\xff\xff\xff\xff\xff\xff\xff\x0f")
    if field != "initializer":
        tried.put(proto)
    assert tried.fails()


def test_operators_of_strangers_are_refused(tried: Tried) -> None:
    """No library of theirs is ever loaded."""
    text = """<ir_version: 8, opset_import: ["": 17, "evil": 1]>
        g (float[N,2] x) => (float[N,2] y) { y = evil.Run <library = "/tmp/evil.so"> (x) }"""
    tried.put(onnx.parser.parse_model(text))
    assert "evil" in tried.fails()


# -- being called off -----------------------------------------------------------------------------


def called_off(tried: Tried, act: Callable[[], None]) -> str:
    """Why a load failed in whose midst something was done."""
    begun = tried.folder / "begun"
    tried.prelude += (
        "import time, pathlib\nimport infold.runtime.prepared as p\n"
        "def wait(*_):\n"
        f"    pathlib.Path({str(begun)!r}).touch()\n"
        "    time.sleep(1000)\n"
        "p._written = wait\n"
    )
    tried.put(conv_norm(4))
    reasons: list[str] = []

    def run() -> None:
        try:
            tried.load()
        except InfoldError as failure:
            reasons.append(str(failure))

    thread = threading.Thread(target=run)
    thread.start()
    while not begun.exists():
        thread.join(0.01)
    assert tried.cache.folder is not None
    assert list(tried.cache.folder.glob(".new-*"))
    act()
    assert tried.leaves_nothing()
    thread.join(20)
    assert not thread.is_alive()
    return reasons[0]


def test_a_trial_that_is_called_off_leaves_nothing(tried: Tried) -> None:
    """No process, no half of an entry; and there are no more trials."""
    assert called_off(tried, tried.trial.close).endswith("the trial of it was called off")
    assert tried.fails() == "the trial of it was called off"
    assert len(tried.children) == 1


def test_a_trial_that_is_killed_leaves_nothing(tried: Tried) -> None:
    """Whoever kills it: the kernel, for want of memory."""

    def kill() -> None:
        os.kill(tried.children[0], 9)
        while not tried.leaves_nothing():
            pass

    assert called_off(tried, kill).endswith("the trial of it was ended by SIGKILL")


def test_a_trial_that_was_never_begun_can_be_closed() -> None:
    """Twice, too."""
    none = Trial()
    none.close()
    none.close()


THREE = """
import sys, pathlib
from infold.errors import InfoldError
from infold.runtime import Cache, Device, ModelConfig, Placement
from infold.serving import trial
from infold.serving.loading import load
from infold.serving.repository import ModelVersion
trial.ENTRY = sys.argv[3] + trial.ENTRY
started, children = trial.Throwaway, []
trial.Throwaway = lambda entry: children.append(1) or started(entry)
version = ModelVersion("m", 1, pathlib.Path(sys.argv[1]), ModelConfig())
cache = Cache(pathlib.Path(sys.argv[2]))
print("ready", flush=True)
sys.stdin.read(1)
reason = "passed"
try:
    load(version, Placement(Device.CPU, ""), 1, cache, trial.Trial(100))
except InfoldError as failure:
    reason = f"{type(failure).__name__} {failure}"
print(len(children), reason)
"""


@pytest.mark.parametrize("outcome", ["passed", "RuntimeCrashError"])
def test_workers_that_start_together_try_a_version_once(tried: Tried, outcome: str) -> None:
    """The others wait, and take what the first has found or met."""
    tried.put(conv_norm(16))
    prelude = tried.prelude
    if outcome != "passed":  # by then all of them wait
        prelude = DIE.format(
            what="infold.serving.tried.prepare", does="import time; time.sleep(1); os.abort()"
        )
    command = [sys.executable, "-c", THREE, str(tried.path), str(tried.cache.folder), prelude]
    pipe = subprocess.PIPE
    workers = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(3)]
    for each in workers:
        assert each.stdout is not None and each.stdout.readline() == "ready\n"
    for each in workers:
        assert each.stdin is not None
        each.stdin.write("x")
        each.stdin.flush()
    said = [each.communicate(timeout=60)[0].split(maxsplit=2) for each in workers]
    assert sorted(each[0] for each in said) == ["0", "0", "1"]
    assert {each[1] for each in said} == {outcome}
    assert len({str(each[2:]) for each in said}) == 1


def test_what_a_trial_met_is_no_news_to_whoever_asks_later(tried: Tried) -> None:
    """They may have mended what was wrong around it."""
    tried.put(conv_norm(16))
    quick, tried.prelude = tried.prelude, "import os; os.abort()\n"
    assert "SIGABRT" in tried.fails()
    tried.prelude = quick
    tried.load()


def test_whoever_waits_for_another_s_trial_is_called_off_too(tried: Tried) -> None:
    """A service may share its cache with one that tries for minutes."""
    tried.put(conv_norm(16))
    assert tried.cache.folder is not None
    place = hashlib.sha256(os.fsencode(tried.path.absolute())).hexdigest()
    reasons: list[str] = []
    with tried.cache.alone(f"trial-{place}"):
        thread = threading.Thread(target=lambda: reasons.append(tried.fails()))
        thread.start()
        tried.trial.close()
        thread.join(20)
        assert not thread.is_alive()
    assert reasons == ["the trial of it was called off"]
