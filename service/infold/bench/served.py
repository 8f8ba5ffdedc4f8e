"""`infold serve` in a process of its own, which is gone when the load is over."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infold.bench.signals import signals_held
from infold.errors import ServerError
from infold.settings import environment_without

__all__ = ["served"]

STOP_S = 2.0
# Of a service that others reach; this one is asked by its own process alone.
OF_ACCESS = ("api_keys", "tls_cert", "tls_key", "tls_client_ca", "observe_port", "cors_origins")


@contextmanager
def served(repository: Path, device: str) -> Iterator[str]:
    """Serve a repository on a free port of this machine as long as the context lasts; its URL.

    One line a request would be most of its log, so it logs from warnings on.

    Raises:
        ServerError: It does not come up, or died meanwhile; says what it said last.
    """
    command = [sys.executable, "-m", "infold", "serve", str(repository)]
    command += ["--host", "127.0.0.1", "--port", "0", "--device", device, "--log-level", "warning"]
    process = None
    with tempfile.TemporaryFile() as said:
        try:
            with signals_held():
                process = subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    text=True,
                    env=environment_without(*OF_ACCESS, "model_name"),
                )
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r" on (http://\S+)", line):
                    yield found[1]
                    break
            else:
                raise ServerError(str(repository), f"infold serve does not start: {_last_line(said)}")
        except ServerError as failure:
            if process is None or (code := process.poll()) is None or failure.url == str(repository):
                raise
            detail = f"infold serve died under load (exit code {code}): {_last_line(said)}"
            raise ServerError(str(repository), detail) from failure
        finally:
            if process is not None:
                _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """End it, asked or not: at this point nobody waits for an answer."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    except BaseException:
        process.kill()
        raise
    finally:
        if process.stdout is not None:
            process.stdout.close()


def _last_line(said: IO[bytes]) -> str:
    said.seek(0)
    lines = said.read().decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("infold: ") if lines else "it said nothing"
