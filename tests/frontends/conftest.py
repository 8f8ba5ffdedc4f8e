"""Suites that need a framework are passed over where it is not installed; `make frameworks` has them all."""

from importlib.util import find_spec

NEEDS = {"test_pytorch*.py": "torch", "test_keras*.py": "keras", "test_tensorflow*.py": "tensorflow"}

collect_ignore_glob = [pattern for pattern, framework in NEEDS.items() if find_spec(framework) is None]
