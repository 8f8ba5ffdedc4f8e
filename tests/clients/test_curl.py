"""Every curl command that the documentation of the service shows, run by curl as it stands there."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import ROOT, Server, running

PAGES = ("README.md", "docs/pictures.md", "docs/protocol.md")
SHOWN = "127.0.0.1:8080"


def commands(page: str) -> list[tuple[str, str]]:
    """Every command with curl in a page's blocks for the shell, and the answer shown behind it, or ""."""
    found: list[tuple[str, str]] = []
    for kind, block in re.findall(r"```(sh|console)\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        # A line that goes on after a backslash, or after a pipe and perhaps a comment.
        lines = re.sub(r"\\\n|\|[ \t]*(#.*)?\n", lambda end: end[0][0].strip("\\") + " ", block).splitlines()
        for line, next_line in zip(lines, [*lines[1:], ""], strict=True):
            is_command = kind == "sh" or line.startswith("$ ")
            # Orders change what the next command meets; `e2e/test_lifecycle.py` gives them.
            if is_command and re.search(r"\bcurl\b", line) and "/v2/repository/" not in line:
                shown = "" if kind == "sh" or next_line.startswith("$ ") else next_line
                found.append((line.removeprefix("$ "), shown))
    return found


SHOWN_COMMANDS = [pair for page in PAGES if (ROOT / page).exists() for pair in commands(page)]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `infold serve models` serves from a checkout."""
    with running(ROOT / "models", tmp_path_factory.mktemp("curl") / "server.log") as started:
        yield started


def test_curl_is_there_and_commands_are_found() -> None:
    """These tests are never skipped: without curl, or with no command found, they fail."""
    assert shutil.which("curl"), "curl is not installed"
    assert len(commands("README.md")) >= 3


@pytest.mark.parametrize(("command", "shown"), SHOWN_COMMANDS, ids=[each[0][:60] for each in SHOWN_COMMANDS])
def test_a_command_shown_does_what_it_shows(
    shipped: Server, tmp_path: Path, command: str, shown: str
) -> None:
    """It succeeds, its answer is no error, and it is the answer shown, where `...` stands for anything."""
    # curl reads this beside its arguments: an answer of 400 or more is a failure, and is printed.
    (tmp_path / ".curlrc").write_text("fail-with-body\nshow-error\n")
    here = command.replace(SHOWN, shipped.address)
    assert here != command, "the command does not say where infold is"
    done = subprocess.run(
        ["bash", "-c", f"export CURL_HOME={shlex.quote(str(tmp_path))}\n{here}"],
        cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout
    assert not done.stdout.lstrip().startswith('{"error"'), done.stdout
    if shown:
        pattern = ".*".join(re.escape(part) for part in shown.split("..."))
        assert re.fullmatch(pattern, done.stdout.strip(), re.DOTALL), done.stdout
