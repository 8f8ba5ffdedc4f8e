"""The tiny models that are fuzzed: what each answers is known without a runtime.

A new kind of model is a new line in `MODELS`; what is asked of it is drawn elsewhere.
"""

from __future__ import annotations

from pathlib import Path

import onnx

__all__ = ["ECHOES", "MODELS", "write_models"]

# Datatype of the protocol by the model that gives back what it is given, rank two.
ECHOES = {
    "echo_bool": "BOOL",
    "echo_uint8": "UINT8",
    "echo_uint16": "UINT16",
    "echo_uint32": "UINT32",
    "echo_uint64": "UINT64",
    "echo_int8": "INT8",
    "echo_int16": "INT16",
    "echo_int32": "INT32",
    "echo_int64": "INT64",
    "echo_float16": "FP16",
    "echo_bfloat16": "BF16",
    "echo_float": "FP32",
    "echo_double": "FP64",
    "echo_string": "BYTES",
}

MODELS = {
    "sums": """sums (float[n, m] a, float[n, m] b) => (float[n, m] total, float[n, m] difference)
        { total = Add(a, b)  difference = Sub(a, b) }""",
    "mixed": """mixed (float[n, 2] a, string[n] b) => (float[n, 2] number, string[n] word)
        { number = Identity(a)  word = Identity(b) }""",
    "anything": "anything (float[] x) => (float[] y) { y = Identity(x) }",
    "single": "single (float x) => (float y) { y = Identity(x) }",
    "picture": "picture (float[n, 3, 8, 8] x) => (float[n, 192] y) { y = Flatten(x) }",
    "spare": "spare (float[n] x) => (float[n] y) { y = Neg(x) }",  # for whoever loads and unloads
    "fixed": "fixed (int64[2, 3] x) => (int64[2, 3] y) { y = Neg(x) }",
    "lookup": """lookup (int64[n] index) => (float[n] value)
        <float[3] table = {10, 20, 30}> { value = Gather(table, index) }""",
    **{
        name: f"echo ({name.removeprefix('echo_')}[n, m] x) => ({name.removeprefix('echo_')}[n, m] y) "
        "{ y = Identity(x) }"
        for name in ECHOES
    },
}

# `model.toml` of those that have one.
CONFIGS = {
    "sums": 'versions = "all"\nversion_labels = { stable = 1 }\n',
    "picture": '[image]\nresize = "stretch"\nsize = [8, 8]\n\n[classification]\ntop = 3\n',
}


def write_models(root: Path) -> Path:
    """A repository of all of them; `sums` has two versions, both served."""
    for name, text in MODELS.items():
        for version in ("1", "2") if name == "sums" else ("1",):
            folder = root / name / version
            folder.mkdir(parents=True)
            model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
            onnx.save(model, str(folder / "model.onnx"))
    for name, text in CONFIGS.items():
        (root / name / "model.toml").write_text(text)
    return root
