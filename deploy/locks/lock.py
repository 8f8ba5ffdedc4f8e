"""Write the lock files: every dependency pinned and hashed, no registry's address recorded.

`serve.txt` is what a server needs, `dev.txt` the same and the tools, `build.txt`
what builds the package, `image.txt` what builds an image, `gpu.txt` what a server
on a GPU needs, `clients.txt` clients that cannot live beside those. One resolution
for all platforms and Python versions.

`convert-*.txt` are for images alone, so for one platform: a framework's wheels are
others on each. Torch is locked to its build for CPUs, which the usual index does
not have: name a folder or an index that does, as uv wants it (UV_FIND_LINKS,
UV_INDEX), or these are left as they are.

    python deploy/locks/lock.py             every lock
    python deploy/locks/lock.py gpu image   these
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WITHIN_DEV = ["--constraint", "deploy/locks/dev.txt"]
ANYWHERE = ["--universal"]
LOCKS = {
    "dev": ["pyproject.toml", "--extra", "cpu", "--extra", "dev"],
    "serve": ["pyproject.toml", "--extra", "cpu", *WITHIN_DEV],
    "build": ["--group", "build", *WITHIN_DEV],
    "image": ["--group", "image", *WITHIN_DEV],
    "gpu": ["pyproject.toml", "--extra", "gpu", *WITHIN_DEV],
    "clients": ["--group", "clients"],
}
# What `FROM python:3.11-slim` is on most machines; glibc 2.28 is older than any base's.
IN_AN_IMAGE = ["--python-platform", "x86_64-manylinux_2_28", "--constraint", "deploy/locks/cpu-builds.txt"]
CONVERT = {
    f"convert-{framework}": ["pyproject.toml", "--extra", "cpu", "--extra", framework, *WITHIN_DEV]
    for framework in ("torch", "keras", "tensorflow")
}


def main(names: list[str]) -> None:
    """Resolve `dev` first, then the others within it, so that they never disagree; `clients` apart."""
    missed = []
    for name, sources in {**LOCKS, **CONVERT}.items():
        if names and name not in names:
            continue
        where = IN_AN_IMAGE if name in CONVERT else ANYWHERE
        if not _lock(HERE / f"{name}.txt", [*sources, *where], may_fail=name in CONVERT and not names):
            missed.append(name)
    if missed:
        print(f"left as they are, for want of torch's build for CPUs: {', '.join(missed)}")


def _lock(target: Path, sources: list[str], *, may_fail: bool) -> bool:
    command = [sys.executable, "-m", "uv", "pip", "compile", *sources]
    command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--quiet", "--upgrade", "--output-file", str(target)]
    done = subprocess.run(command, cwd=HERE.parents[1])
    if done.returncode != 0 and may_fail:
        return False
    done.check_returncode()
    # uv writes the options that it found in the environment in front.
    lines = target.read_text().splitlines(keepends=True)
    target.write_text("".join(line for line in lines if not line.startswith(("--find-links", "--index"))))
    if "://" in target.read_text() or "--index" in target.read_text():
        sys.exit(f"{target.name} records an address")
    return True


if __name__ == "__main__":
    main(sys.argv[1:])
