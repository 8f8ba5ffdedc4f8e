"""`infold doctor` as a whole: what it prints, its exit code, ports, settings, and what is not installed."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest

from command_line import assert_error, infold
from infold.doctor import Finding, Level, examine, installed, reaching, told
from infold.doctor.examination import Examination
from infold.doctor.findings import bad, ok, warn
from infold.settings import Settings

ROOT = Path(__file__).parents[2]


def test_a_healthy_service_is_told_for_people_and_exits_with_0() -> None:
    """A line a finding; the models are opened, and the last line is what it comes to."""
    done = infold("doctor", ROOT / "models", "--port", 0)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "would serve digits"
    assert any(line.startswith("ok    model digits  version 1 would be ready") for line in lines)
    assert "setting       port = 0 (command line)" in done.stdout


def test_what_stops_it_is_told_to_programs_and_exits_with_1(tmp_path: Path) -> None:
    """All findings, those that are well as well."""
    done = infold("doctor", tmp_path / "gone", "--port", 0, "--json", INFOLD_WORKERS="2")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["would_serve"], told["models"]) == (1, "", False, [])
    by_topic = {each["topic"]: each for each in told["findings"]}
    assert by_topic["repository"]["level"] == "bad" and by_topic["cpu"]["facts"]["workers"] == 2
    assert any(each["text"] == "workers = 2 (INFOLD_WORKERS)" for each in told["findings"])


def test_a_setting_that_makes_no_sense_is_usage() -> None:
    """As of the service."""
    assert_error(infold("doctor", INFOLD_PORT="http"), 2, "INFOLD_PORT")


def test_a_look_that_fails_is_a_finding_and_not_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is broken, the rest is told."""

    def broken(*_: object) -> list[Finding]:
        raise ImportError("no such module")

    monkeypatch.setattr(told, "check_settings", broken)
    found = examine(Settings(repository=tmp_path, port=0), opens_models=False)
    (setting,) = [each for each in found.findings if each.topic == "setting"]
    assert setting.level is Level.BAD and "ImportError: no such module" in setting.text
    assert found.findings[-1].topic == "repository" and not found.would_serve


def test_without_onnxruntime_all_else_is_still_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a finding with what to install; models are looked at and not opened."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(metadata, "distributions", list)
    found = examine(Settings(repository=ROOT / "models", port=0))
    (runtime,) = [each for each in found.findings if each.topic == "onnxruntime"]
    assert (runtime.level, runtime.text) == (Level.BAD, "is not installed")
    assert "infold[cpu]" in runtime.remedy
    (model,) = [each for each in found.findings if each.topic == "model digits"]
    assert model.level is Level.OK and "not opened" in model.text


def test_an_onnxruntime_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a library that it misses."""
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    (found,) = installed.check_runtime()
    assert found.level is Level.BAD and "cannot be imported: import of onnxruntime halted" in found.text


def test_two_builds_of_onnxruntime_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """They overwrite each other's files."""
    monkeypatch.setattr(installed, "_builds", lambda: {"onnxruntime": "1", "onnxruntime-gpu": "2"})
    (found,) = installed.check_runtime()
    assert found.level is Level.WARN and "pip uninstall -y onnxruntime onnxruntime-gpu" in found.remedy


def test_a_package_that_is_missing_is_named_unless_only_the_converter_wants_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image that only serves may do without the converter's."""
    real, gone = installed._version, {"onnx", "onnx-ir"}
    monkeypatch.setattr(installed, "_version", lambda name: None if name in gone else real(name))
    (found,) = installed.check_packages()
    assert found.level is Level.OK and "onnx is not installed" in found.text
    gone.add("uvicorn")
    (found,) = installed.check_packages()
    assert (found.level, found.remedy) == (Level.BAD, "pip install uvicorn")


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Something that answers `GET /v2` as it is told."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content: bytes = vars(self.server)["content"]
            self.send_response(200 if content else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Answers) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("content", "level", "words"),
    [
        (b'{"name":"infold","version":"9.9"}', Level.WARN, "infold 9.9 answers there already"),
        (b'{"name":"triton"}', Level.BAD, "answers 200 to GET /v2"),
        (b"[", Level.BAD, "answers 200 to GET /v2"),
        (b"", Level.BAD, "answers 404 to GET /v2"),
    ],
)
def test_who_has_the_port_is_asked(server: HTTPServer, content: bytes, level: Level, words: str) -> None:
    """The service itself, as when the doctor is called beside it, stops nothing."""
    vars(server)["content"] = content
    (found,) = reaching.check_ports(Settings(port=server.server_port))
    assert found.level is level and words in found.text


def test_a_port_that_is_free_stays_so() -> None:
    """It is never listened on; one that cannot be had says why."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for _ in range(2):
        (found,) = reaching.check_ports(Settings(port=port))
        assert (found.level, found.text) == (Level.OK, f"127.0.0.1:{port} is free")
    found, second = reaching.check_ports(Settings(host="192.0.2.1", port=port, observe_port=0))
    assert found.level is Level.BAD and "cannot listen here" in found.text and second.level is Level.OK


def test_files_of_keys_and_certificates_are_read_as_the_service_reads_them(tmp_path: Path) -> None:
    """What stops the start stops here."""
    for settings in (
        Settings(api_keys=tmp_path / "keys.toml"),
        Settings(tls_cert=tmp_path / "cert.pem"),
        Settings(tls_key=tmp_path / "key.pem"),
    ):
        assert [each.level for each in reaching.check_access(settings)] == [Level.BAD]
    assert [each.text for each in reaching.check_access(Settings())] == ["plain HTTP, anybody may call"]


def test_settings_are_told_with_where_they_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is misspelt has no effect and is told; secrets in an address are not."""
    for name in ("INFOLD_PROT", "INFOLD_ZZZ", "INFOLD_SERVICE_HOST", "INFOLD_PORT_8080_TCP_ADDR"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("infold_drain_s", "3")
    monkeypatch.delenv("INFOLD_CACHE_DIR")
    monkeypatch.setenv("INFOLD_TRACE_ENDPOINT", "https://me:secret@host/v1")
    found = told.check_settings(Settings.read(port=9), ["port"])
    texts = [each.text for each in found if each.level is Level.OK]
    assert texts == [
        "port = 9 (command line)",
        "trace_endpoint = https://...@host/v1 (INFOLD_TRACE_ENDPOINT)",
        "drain_s = 3.0 (INFOLD_DRAIN_S)",
    ]
    warnings = [each for each in found if each.level is Level.WARN]
    assert [each.remedy.split()[0] for each in warnings] == ["is", "take", "nothing;"]
    assert "INFOLD_PORT" in warnings[0].remedy and "secret" not in str(found)


def test_what_it_comes_to_is_one_sentence() -> None:
    """Warnings stop nothing."""
    fine, odd, worse = ok("a", "is\nwell"), warn("bcd", "is odd", "look"), bad("e", "is bad", "mend it")
    assert Examination((fine, odd), ("m", "n")).text().splitlines() == [
        "ok    a    is well",
        "warn  bcd  is odd",
        "           -> look",
        "would serve m, n",
    ]
    assert Examination((fine, worse), ()).sentence() == "would not serve: 1 of these stops it"
    assert not Examination((worse,), ("m",)).would_serve
