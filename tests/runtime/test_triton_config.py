"""`config.pbtxt`: read as Triton reads it, taken as infold serves it, refused where answers would differ."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infold.errors import ConfigError
from infold.runtime import (
    Batching,
    Device,
    ModelConfig,
    SessionConfig,
    TritonConfig,
    TritonTensor,
    Warmup,
    WarmupInput,
    parse_triton_json,
    read_triton_config,
)
from infold.runtime.triton_config import LIMIT_BYTES, parse_triton_text
from infold.runtime.triton_schema import model_config

DOCS = Path(__file__).parents[2] / "docs" / "triton.md"
X = 'input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] '
Y = 'output { name: "y" data_type: TYPE_FP32 dims: [ 4 ] '
TENSORS = f"{X}}} {Y}}}"


def config(text: str) -> TritonConfig:
    return parse_triton_text(text, "m/config.pbtxt")


def refusal(text: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        config(text)
    return caught.value


# -- the table of the documentation -------------------------------------------------------------------

# A file that sets the field, and for those that are followed what that comes to.
SERVED: dict[str, tuple[str, Any]] = {
    "name": ('name: "m"', lambda c: c.name == "m"),
    "platform": ('platform: "onnxruntime_onnx"', lambda c: c == config("")),
    "backend": ('backend: "onnxruntime"', lambda c: c == config("")),
    "default_model_filename": ('default_model_filename: "a.onnx"', lambda c: c.filename == "a.onnx"),
    "version_policy": ("version_policy { all {} }", lambda c: c.base.versions == "all"),
    "max_batch_size": ("max_batch_size: 16", lambda c: c.base.batching.max_rows == 16),
    "input": (X + "}", lambda c: c.inputs == (TritonTensor("x", "TYPE_FP32", (4,)),)),
    "output": (Y + "}", lambda c: c.outputs == (TritonTensor("y", "TYPE_FP32", (4,)),)),
    "input.format": (
        'input { name: "x" data_type: TYPE_FP32 dims: [3, 8, 8] format: FORMAT_NCHW }',
        lambda c: c.inputs[0].format == "FORMAT_NCHW",
    ),
    "input.reshape": (X + "reshape { shape: [2, 2] } }", lambda c: c.inputs[0].reshape == (2, 2)),
    "output.reshape": (Y + "reshape { shape: [2, 2] } }", lambda c: c.outputs[0].reshape == (2, 2)),
    "output.label_filename": (Y + 'label_filename: "l.txt" }', lambda c: c.labels == {"y": "l.txt"}),
    "dynamic_batching": (
        f"max_batch_size: 4 {TENSORS} dynamic_batching {{}}",
        lambda c: c.base.batching.join == "auto",
    ),
    "dynamic_batching.preferred_batch_size": (
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: [2, 4] }",
        lambda c: c.base.batching.preferred_rows == (2, 4),
    ),
    "dynamic_batching.max_queue_delay_microseconds": (
        "dynamic_batching { max_queue_delay_microseconds: 1500 }",
        lambda c: c.base.batching.max_delay_s == 0.0015,
    ),
    "dynamic_batching.default_queue_policy.max_queue_size": (
        "max_batch_size: 4 dynamic_batching { default_queue_policy { max_queue_size: 9 } }",
        lambda c: c.base.batching.capacity_rows == 9,
    ),
    "instance_group.kind": ("instance_group { kind: KIND_GPU }", lambda c: c.device is Device.CUDA),
    "instance_group.count": (
        "instance_group [ { count: 2 }, { count: 1 } ]",
        lambda c: c.base.session.runs == 3,
    ),
    "parameters.intra_op_thread_count": (
        'parameters { key: "intra_op_thread_count" value { string_value: "3" } }',
        lambda c: c.base.session.intra_op_threads == 3,
    ),
    "model_warmup": (
        'model_warmup { name: "w" batch_size: 1 }',
        lambda c: c.warmups == (Warmup("w", 1, (), 1),),
    ),
}
REFUSED = {
    "platform": 'platform: "tensorrt_plan"',
    "backend": 'backend: "python"',
    "sequence_batching": "sequence_batching {}",
    "ensemble_scheduling": 'platform: "ensemble" ensemble_scheduling { step { model_name: "a" } }',
    "batch_input": 'batch_input { kind: BATCH_ITEM_SHAPE target_name: "a" }',
    "batch_output": 'batch_output { target_name: "a" }',
    "cc_model_filenames": 'cc_model_filenames { key: "8.0" value: "a.onnx" }',
    "model_operations": 'model_operations { op_library_filename: "a.so" }',
    "model_repository_agents": 'model_repository_agents { agents { name: "checksum" } }',
    "model_transaction_policy.decoupled": "model_transaction_policy { decoupled: true }",
    "dynamic_batching.priority_levels": "dynamic_batching { priority_levels: 2 default_priority_level: 1 }",
    "input.is_shape_tensor": X + "is_shape_tensor: true }",
    "input.allow_ragged_batch": X + "allow_ragged_batch: true }",
    "input.optional": X + "optional: true }",
    "input.is_non_linear_format_io": X + "is_non_linear_format_io: true }",
    "output.is_shape_tensor": Y + "is_shape_tensor: true }",
    "output.is_non_linear_format_io": Y + "is_non_linear_format_io: true }",
    "instance_group.passive": "instance_group { passive: true }",
}
IGNORED = {
    "runtime": 'runtime: "libtriton_onnxruntime.so"',
    "optimization": "optimization { graph { level: -1 } cuda { graphs: true } }",
    "response_cache": "response_cache { enable: true }",
    "model_metrics": "model_metrics { metric_control { histogram_options { buckets: [1.5] } } }",
    "metric_tags": 'metric_tags { key: "a" value: "b" }',
    "dynamic_batching.preserve_ordering": "dynamic_batching { preserve_ordering: true }",
    "dynamic_batching.priority_levels": "dynamic_batching { priority_levels: 1 }",
    "dynamic_batching.default_priority_level": "dynamic_batching { default_priority_level: 1 }",
    "dynamic_batching.priority_queue_policy": "dynamic_batching { priority_queue_policy { key: 1 } }",
    "dynamic_batching.default_queue_policy.timeout_action": (
        "dynamic_batching { default_queue_policy { timeout_action: DELAY } }"
    ),
    "dynamic_batching.default_queue_policy.default_timeout_microseconds": (
        "dynamic_batching { default_queue_policy { default_timeout_microseconds: 5 } }"
    ),
    "dynamic_batching.default_queue_policy.allow_timeout_override": (
        "dynamic_batching { default_queue_policy { allow_timeout_override: true } }"
    ),
    "instance_group.gpus": "instance_group { gpus: [0, 1] }",
    "instance_group.host_policy": 'instance_group { host_policy: "p" }',
    "instance_group.profile": 'instance_group { profile: "0" }',
    "instance_group.rate_limiter": "instance_group { rate_limiter { priority: 2 } }",
    "instance_group.secondary_devices": "instance_group { secondary_devices { device_id: 1 } }",
    "parameters": 'parameters { key: "execution_mode" value { string_value: "1" } }',
    "model_warmup": "model_warmup { count: 3 }",
}


@pytest.mark.parametrize("field", SERVED)
def test_what_is_honoured_comes_to_something(field: str) -> None:
    """And is not said to be ignored."""
    text, holds = SERVED[field]
    assert holds(config(text))
    assert config(text).ignored == ()


@pytest.mark.parametrize("field", REFUSED)
def test_what_would_change_answers_is_refused_by_its_name(field: str) -> None:
    """In a list with its index."""
    place = re.sub(r"\[\d+\]", "", refusal(REFUSED[field]).place)
    assert place == f"m/config.pbtxt: {field}"


@pytest.mark.parametrize("field", IGNORED)
def test_what_changes_no_answer_is_accepted_and_listed(field: str) -> None:
    """So that somebody can be told."""
    (name,) = config(IGNORED[field]).ignored
    name = re.sub(r"\[\d+\]", "", name)
    assert name == field or (field == "parameters" and name == "parameters.execution_mode")


def test_the_documentation_has_a_row_for_each_of_these_and_no_other() -> None:
    """What becomes of every field."""
    rows = re.findall(r"^\| `([\w.]+)`[^|]*\| (honoured|refused|ignored) \|", DOCS.read_text(), re.MULTILINE)
    examples = {"honoured": SERVED, "refused": REFUSED, "ignored": IGNORED}
    expected = [(field, what) for what, fields in examples.items() for field in fields]
    assert sorted(rows) == sorted(expected)


# -- what it comes to ---------------------------------------------------------------------------------


def test_a_whole_file_is_understood(tmp_path: Path) -> None:
    """In the spellings that protobuf's text format allows."""
    path = tmp_path / "config.pbtxt"
    path.write_text(
        """
        # A comment.
        name: "m"  platform: 'onnxruntime_onnx'
        max_batch_size: 8
        input [ { name: "x", data_type: TYPE_INT64, dims: [ -1, 2 ] },
                { name: "z" data_type: TYPE_STRING dims: 1 reshape { shape: [ ] } } ]
        output: < name: "y"; data_type: TYPE_FP16; dims: -1 >
        version_policy: { specific: { versions: [ 3, 1, 3 ] } }
        dynamic_batching { preferred_batch_size: [ 4 ] }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        model_warmup [ {
            name: "zeros" batch_size: 2 count: 3
            inputs { key: "z" value { data_type: TYPE_STRING dims: [ 1 ] input_data_file: "a/z" } }
            inputs { key: "x" value { data_type: TYPE_INT64 dims: [ 5, 2 ] random_data: true } } } ]
        """
    )
    assert read_triton_config(path) == TritonConfig(
        str(path),
        "m",
        8,
        (
            TritonTensor("x", "TYPE_INT64", (-1, 2)),
            TritonTensor("z", "TYPE_STRING", (1,), ()),
        ),
        (TritonTensor("y", "TYPE_FP16", (-1,)),),
        ModelConfig((1, 3), Batching(8, preferred_rows=(4,)), SessionConfig(runs=2)),
        warmups=(
            Warmup(
                "zeros",
                2,
                (
                    WarmupInput("x", "TYPE_INT64", (5, 2), "random_data"),
                    WarmupInput("z", "TYPE_STRING", (1,), "input_data_file", "a/z"),
                ),
                3,
            ),
        ),
        device=Device.CPU,
    )


def test_no_file_says_nothing(tmp_path: Path) -> None:
    """An empty one says as much as Triton takes from it: complete it from the model."""
    assert read_triton_config(tmp_path / "config.pbtxt") is None
    (tmp_path / "config.pbtxt").write_text("")
    found = read_triton_config(tmp_path / "config.pbtxt")
    assert found is not None and found.base == ModelConfig() and not found.is_complete


@pytest.mark.parametrize(
    ("text", "rows", "join"),
    [
        (TENSORS, 1, "never"),
        (f"{TENSORS} max_batch_size: 8", 8, "never"),
        (f"{TENSORS} max_batch_size: 8 dynamic_batching {{}}", 8, "auto"),
        (f"{TENSORS} dynamic_batching {{}}", 1, "never"),
        (X + "}", 64, "auto"),
        (X + "} max_batch_size: 8", 8, "auto"),
        ("max_batch_size: 500", 500, "auto"),
    ],
)
def test_requests_are_joined_where_triton_would(text: str, rows: int, join: str) -> None:
    """Where the file says so, or where tensors are left to the model, which has Triton complete that."""
    batching = config(text).base.batching
    assert (batching.max_rows, batching.join) == (rows, join)
    assert batching.problem() is None


def test_a_queue_holds_a_whole_run_at_least() -> None:
    """Whatever it is wished to hold."""
    queue = "dynamic_batching { default_queue_policy { max_queue_size: 3 } }"
    assert config(f"max_batch_size: 8 {queue}").base.batching.capacity_rows == 8
    assert config("max_batch_size: 1000").base.batching.capacity_rows == 1000


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("", "latest"),
        ("version_policy {}", "latest"),
        ("version_policy { latest {} }", "latest"),
        ("version_policy { latest { num_versions: 1 } }", "latest"),
        ("version_policy { latest { num_versions: 3 } }", "latest:3"),
        ("version_policy { specific { versions: 7 } }", (7,)),
    ],
)
def test_forms_of_a_version_policy(text: str, versions: object) -> None:
    """One by default."""
    assert config(text).base.versions == versions


@pytest.mark.parametrize(
    ("kinds", "device"),
    [
        ([], None),
        (["KIND_AUTO"], None),
        (["KIND_MODEL"], None),
        (["KIND_CPU"], Device.CPU),
        (["KIND_CPU", "KIND_AUTO"], None),
        (["KIND_CPU", "KIND_GPU"], Device.CUDA),
    ],
)
def test_instances_want_a_device_or_none(kinds: list[str], device: Device | None) -> None:
    """One that must have a GPU decides."""
    assert config(" ".join(f"instance_group {{ kind: {kind} }}" for kind in kinds)).device is device


# -- what makes no sense ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "detail"),
    [
        ("name: 'm'\nmax_batch: 8", "line 2", "unknown field 'max_batch' of ModelConfig"),
        ("input {\n name: 'x'\n\n type: TYPE_FP32 }", "line 4", "unknown field 'type' of Input"),
        ("max_batch_size: 'many'", "line 1", "Couldn't parse integer"),
        ("max_batch_size: 99999999999", "line 1", "out of range"),
        ("name: 3", "line 1", "Expected string"),
        ("name: 'a'\nname: 'b'", "line 2", "multiple"),
        ("input { data_type: FP32 }", "line 1", "no value named FP32"),
        ("\n\ninput {", "line 3", ""),
        ("{}", "line 1", ""),
        ("dynamic_batching {} sequence_batching {}", "line 1", "another member of oneof"),
    ],
)
def test_what_is_no_such_text_is_named_by_its_line(text: str, place: str, detail: str) -> None:
    """With what protobuf has to say of it."""
    error = refusal(text)
    assert error.place == f"m/config.pbtxt: {place}"
    assert detail in error.detail
    assert "infold.triton" not in error.detail


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("max_batch_size: -1", "max_batch_size"),
        ("version_policy { specific {} }", "version_policy.specific.versions"),
        ("version_policy { specific { versions: [1, 0] } }", "version_policy.specific.versions"),
        ("input { data_type: TYPE_FP32 dims: 1 }", "input[0].name"),
        ("input { name: 'x' dims: 1 }", "input[0].data_type"),
        ("input { name: 'x' data_type: 99 dims: 1 }", "input[0].data_type"),
        ("input { name: 'x' data_type: TYPE_FP32 format: 7 }", "input[0].format"),
        ("input { name: 'x' data_type: TYPE_FP32 dims: [1, 0] }", "input[0].dims"),
        ("input { name: 'x' data_type: TYPE_FP32 dims: -2 }", "input[0].dims"),
        (f"input {{ name: 'x' data_type: TYPE_FP32 dims: {[9] * 100_000} }}", "input[0].dims"),
        (f"{X}}} {X}}}", "input[1].name"),
        (X + "reshape { shape: [3] } }", "input[0].reshape.shape"),
        (X + "reshape { shape: [] } }", "input[0].reshape.shape"),
        (X + "reshape { shape: [2, 0] } }", "input[0].reshape.shape"),
        ("instance_group { kind: 9 }", "instance_group[0].kind"),
        ("instance_group [ {}, { count: -1 } ]", "instance_group[1].count"),
        ("instance_group { count: 2000 }", "instance_group"),
        ("dynamic_batching { max_queue_delay_microseconds: 61000000 }",
         "dynamic_batching.max_queue_delay_microseconds"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
         "dynamic_batching.preferred_batch_size"),
        ("max_batch_size: 4 dynamic_batching { preferred_batch_size: 0 }",
         "dynamic_batching.preferred_batch_size"),
        ("parameters { key: 'intra_op_thread_count' value { string_value: 'all' } }",
         "parameters.intra_op_thread_count"),
        ("parameters { key: 'intra_op_thread_count' value { string_value: '5000' } }",
         "parameters.intra_op_thread_count"),
        ("max_batch_size: 4 model_warmup { batch_size: 5 }", "model_warmup[0].batch_size"),
        (TENSORS + "model_warmup { batch_size: 2 }", "model_warmup[0].batch_size"),
        ("model_warmup [ { batch_size: 1 }, { batch_size: 1 count: 4000000000 } ]", "model_warmup[1].count"),
        ("model_warmup { batch_size: 1 inputs { key: 'x' value { data_type: TYPE_FP32 } } }",
         "model_warmup[0].inputs['x']"),
        ("model_warmup { batch_size: 1 inputs { key: 'x' value { zero_data: true } } }",
         "model_warmup[0].inputs['x'].data_type"),
        ("model_warmup { batch_size: 1 inputs { key: 'x' value { dims: -1 zero_data: true data_type: 1 } } }",
         "model_warmup[0].inputs['x'].dims"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named_by_its_field(text: str, place: str) -> None:
    """With its index where it stands in a list."""
    assert refusal(text).place == f"m/config.pbtxt: {place}"


@pytest.mark.parametrize(
    ("dims", "reshape", "fits"),
    [
        ([1], [], True),
        ([4], [2, 2], True),
        ([2, 4, -1, 6], [8, -1, 1, 6], True),
        ([-1, -1], [-1, 1, -1], True),
        ([-1, 4], [4, -1], False),
        ([-1], [-1, -1], False),
        ([-1], [1], False),
        ([4], [2, 3], False),
    ],
)
def test_a_reshape_keeps_elements_and_open_axes_in_their_order(
    dims: list[int], reshape: list[int], fits: bool
) -> None:
    """What stands between two open axes has as many elements on both sides."""
    text = f"input {{ name: 'x' data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {reshape} }} }}"
    if fits:
        assert config(text).inputs[0].reshape == tuple(reshape)
    else:
        assert "does not hold the same elements" in refusal(text).detail


# -- hostile files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b.onnx", "..", ".", r"a\\b", r"a\000b"])
def test_a_model_lies_in_its_versions_folder(name: str) -> None:
    """Under a name, not at the end of a path."""
    assert refusal(f'default_model_filename: "{name}"').place.endswith(": default_model_filename")


@pytest.mark.parametrize("path", ["../labels.txt", "/etc/passwd", "a/../../b", "..", ".", r"..\\b", r"\000"])
def test_files_lie_below_the_models_folder(path: str) -> None:
    """Labels and samples of a warm-up."""
    assert refusal(f'{Y} label_filename: "{path}" }}').place.endswith(": output[0].label_filename")
    inputs = f'inputs {{ key: "x" value {{ data_type: TYPE_FP32 input_data_file: "{path}" }} }}'
    assert refusal(f"model_warmup {{ batch_size: 1 {inputs} }}").place.endswith(".input_data_file")


def test_a_long_file_is_not_read(tmp_path: Path) -> None:
    """10 MB of comment are no configuration."""
    path = tmp_path / "config.pbtxt"
    path.write_bytes(b"#" * 10_000_000)
    with pytest.raises(ConfigError, match=f"larger than {LIMIT_BYTES} bytes"):
        read_triton_config(path)
    with pytest.raises(ConfigError, match=f"larger than {LIMIT_BYTES} bytes"):
        parse_triton_json("{" + " " * LIMIT_BYTES + "}", "config")
    path.write_bytes(b"#" * LIMIT_BYTES)
    assert read_triton_config(path) is not None


def test_what_is_no_file_and_what_is_no_text(tmp_path: Path) -> None:
    """A folder, a pipe that nobody writes to, bytes that are no UTF-8."""
    path = tmp_path / "config.pbtxt"
    path.mkdir()
    with pytest.raises(ConfigError, match="is no file"):
        read_triton_config(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no file"):
        read_triton_config(path)
    path.unlink()
    path.write_bytes(b"name: '\xff'")
    with pytest.raises(ConfigError, match="not valid protobuf text"):
        read_triton_config(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        "input {" * 100_000,
        "input: [" * 100_000,
        "x" * 500_000,
        "'" + "x" * 500_000,
        "[type.googleapis.com/infold.triton.ModelConfig] { name: 'a' }",
        "\0",
        "name: '" + "x" * 500_000 + "' platform: '" + "y" * 500_000 + "'",
    ],
)
def test_hostile_text_is_an_error_of_a_few_words(text: str) -> None:
    """Nested deep, or long."""
    assert len(str(refusal(text))) < 500


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "3", "[]", "[1]", '"x"', "{", "[" * 100_000, '{"input":' * 100_000, '{"a":1}',
        '{"input": {}}', '{"input": [null]}', '{"input": [3]}', '{"name": 3}', '{"name": "a", "name": "b"}',
        '{"max_batch_size": 1.5}', '{"max_batch_size": true}', '{"max_batch_size": NaN}',
        '{"max_batch_size": ' + "9" * 5000 + "}", '{"name": "\\ud800"}', '{"parameters": {"a": "b"}}',
        '{"input": [{"data_type": "FP32"}]}', '{"max_batch_size": "x"}', '{"' + "x" * 100_000 + '": 1}',
        '{"dynamicBatching": {}, "sequenceBatching": {}}',
    ],
)  # fmt: skip
def test_hostile_json_is_an_error_of_a_few_words(text: str) -> None:
    """Wrong types, wrong nesting, no JSON."""
    with pytest.raises(ConfigError) as caught:
        parse_triton_json(text, "config")
    assert caught.value.place.startswith("config")
    assert len(str(caught.value)) < 500


WORDS = (
    *(
        "name",
        "platform",
        "input",
        "output",
        "dims",
        "data_type",
        "TYPE_FP32",
        "reshape",
        "shape",
        "key",
        "value",
    ),
    *("dynamic_batching", "max_batch_size", "model_warmup", "inputs", "instance_group", "count", "kind"),
    *("-1", "0", "8", "1e9", '"x"', '"../y"', "{", "}", "[", "]", ":", ",", "<", ">"),
)


@given(st.one_of(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), st.text(max_size=60)))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """And nothing else happens."""
    for parse in (parse_triton_text, parse_triton_json):
        try:
            assert parse(text, "m").base.batching.problem() is None
        except ConfigError as refused:
            assert refused.place.startswith("m")


# -- JSON and the schema ------------------------------------------------------------------------------


def test_json_is_read_in_both_spellings() -> None:
    """As protobuf writes names, and in camel case; long numbers may be strings."""
    snake = """{"name": "m", "max_batch_size": 8, "version_policy": {"latest": {"num_versions": 2}},
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
        "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": ["4"]}],
        "dynamic_batching": {"max_queue_delay_microseconds": 100}}"""
    camel = re.sub(r'_([a-z])(?=[a-z_]*": )', lambda found: found[1].upper(), snake)
    assert '"maxQueueDelayMicroseconds"' in camel and '"dataType"' in camel
    wanted = f"""name: 'm' max_batch_size: 8 version_policy {{ latest {{ num_versions: 2 }} }}
        {TENSORS} dynamic_batching {{ max_queue_delay_microseconds: 100 }}"""
    assert parse_triton_json(snake, "m/config.pbtxt") == config(wanted)
    assert parse_triton_json(camel, "m/config.pbtxt") == config(wanted)
    with pytest.raises(ConfigError, match="unknown field 'max_batch' of ModelConfig"):
        parse_triton_json('{"max_batch": 8}', "config")


def test_every_field_is_the_one_that_tritons_client_knows() -> None:
    """Names, numbers, types, choices and words of its own copy of the schema."""
    client = importlib.util.find_spec("tritonclient")
    assert client is not None and client.submodule_search_locations is not None
    path = Path(client.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    own, theirs = facts(model_config().DESCRIPTOR), facts(module.ModelConfig.DESCRIPTOR)
    assert len(theirs) > 150
    # Renamed since, of a message that is refused as a whole.
    renamed = {name for name in own.keys() ^ theirs.keys() if "ensemble_scheduling.max_inflight" in name}
    assert {name: own.get(name) for name in own.keys() | theirs.keys() if name not in renamed} == {
        name: theirs.get(name) for name in own.keys() | theirs.keys() if name not in renamed
    }


def facts(message: Any, path: str = "") -> dict[str, object]:
    """Whatever matters to a parser, of all fields below a message."""
    found: dict[str, object] = {}
    for field in message.fields:
        name = f"{path}.{field.name}"
        words = field.enum_type and [(value.name, value.number) for value in field.enum_type.values]
        choice = field.containing_oneof and field.containing_oneof.name
        # A list or map has a default of its own kind.
        found[name] = (field.number, field.type, str(field.default_value), choice, words)
        if field.message_type is not None:
            found |= facts(field.message_type, name)
    return found
