"""Write the lock files: every dependency pinned and hashed, no registry's address recorded.

`serve.txt` is what a server needs, `dev.txt` the same and the tools, `build.txt`
what builds the package, `clients.txt` clients that cannot live beside those. One
resolution for all platforms and Python versions.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LOCKS = {
    "dev": ["pyproject.toml", "--extra", "cpu", "--extra", "dev"],
    "serve": ["pyproject.toml", "--extra", "cpu", "--constraint", "deploy/locks/dev.txt"],
    "build": ["--group", "build", "--constraint", "deploy/locks/dev.txt"],
    "clients": ["--group", "clients"],
}


def main() -> None:
    """Resolve `dev` first, then the others within it, so that they never disagree; `clients` apart."""
    for name, sources in LOCKS.items():
        target = HERE / f"{name}.txt"
        command = [sys.executable, "-m", "uv", "pip", "compile", *sources, "--universal"]
        command += ["--python-version", "3.11", "--generate-hashes", "--no-header", "--no-annotate"]
        command += ["--quiet", "--upgrade", "--output-file", str(target)]
        subprocess.run(command, check=True, cwd=HERE.parents[1])
        text = target.read_text()
        if "://" in text or "--index" in text:
            sys.exit(f"{target.name} records an address")


if __name__ == "__main__":
    main()
