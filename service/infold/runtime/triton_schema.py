"""The shape of Triton's model configuration, as protobuf's own parsers need it.

Names, numbers and types of fields are facts of a public interface; they stand
here as a table, and a descriptor is made of it when one is first asked for.
protobuf is imported only then. Messages that infold has no use for are in it
too, so that a file that holds them is read, and refused or noted by name.

Source: Triton's model_config.proto.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto
    from google.protobuf.message import Message

__all__ = ["MESSAGES", "model_config"]

PACKAGE = "infold.triton"

# Values count from 0.
ENUMS = {
    "DataType": "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 TYPE_INT16"
    " TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16",
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "GroupKind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "SecondaryKind": "KIND_NVDLA",
    "TimeoutAction": "REJECT DELAY",
    "Priority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
    "ControlKind": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END"
    " CONTROL_SEQUENCE_CORRID",
    "BatchInputKind": "BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT"
    " BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE"
    " BATCH_ITEM_SHAPE_FLATTEN",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
}

# name:number:type, a list with `*`, a map as `key>value`, a choice of one with `|its name`.
MESSAGES = {
    "ModelConfig": "name:1:string platform:2:string backend:17:string runtime:25:string"
    " version_policy:3:VersionPolicy max_batch_size:4:int32 input:5:Input* output:6:Output*"
    " batch_input:20:BatchInput* batch_output:21:BatchOutput* optimization:12:Optimization"
    " dynamic_batching:11:DynamicBatching|scheduling_choice"
    " sequence_batching:13:SequenceBatching|scheduling_choice"
    " ensemble_scheduling:15:Ensemble|scheduling_choice instance_group:7:InstanceGroup*"
    " default_model_filename:8:string cc_model_filenames:9:string>string metric_tags:10:string>string"
    " parameters:14:string>Parameter model_warmup:16:Warmup* model_operations:18:Operations"
    " model_transaction_policy:19:TransactionPolicy model_repository_agents:23:RepositoryAgents"
    " response_cache:24:ResponseCache model_metrics:26:Metrics",
    "VersionPolicy": "latest:1:Latest|policy_choice all:2:All|policy_choice"
    " specific:3:Specific|policy_choice",
    "Latest": "num_versions:1:uint32",
    "All": "",
    "Specific": "versions:1:int64*",
    "Reshape": "shape:1:int64*",
    "Input": "name:1:string data_type:2:DataType format:3:Format dims:4:int64* reshape:5:Reshape"
    " is_shape_tensor:6:bool allow_ragged_batch:7:bool optional:8:bool is_non_linear_format_io:9:bool",
    "Output": "name:1:string data_type:2:DataType dims:3:int64* reshape:5:Reshape label_filename:4:string"
    " is_shape_tensor:6:bool is_non_linear_format_io:7:bool",
    "BatchInput": "kind:1:BatchInputKind target_name:2:string* data_type:3:DataType source_input:4:string*",
    "BatchOutput": "target_name:1:string* kind:2:BatchOutputKind source_input:3:string*",
    "InstanceGroup": "name:1:string kind:4:GroupKind count:2:int32 rate_limiter:6:RateLimiter gpus:3:int32*"
    " secondary_devices:8:SecondaryDevice* profile:5:string* passive:7:bool host_policy:9:string",
    "RateLimiter": "resources:1:Resource* priority:2:uint32",
    "Resource": "name:1:string global:2:bool count:3:uint32",
    "SecondaryDevice": "kind:1:SecondaryKind device_id:2:int64",
    "DynamicBatching": "preferred_batch_size:1:int32* max_queue_delay_microseconds:2:uint64"
    " preserve_ordering:3:bool priority_levels:4:uint64 default_priority_level:5:uint64"
    " default_queue_policy:6:QueuePolicy priority_queue_policy:7:uint64>QueuePolicy",
    "QueuePolicy": "timeout_action:1:TimeoutAction default_timeout_microseconds:2:uint64"
    " allow_timeout_override:3:bool max_queue_size:4:uint32",
    "Parameter": "string_value:1:string",
    "Warmup": "name:1:string batch_size:2:uint32 inputs:3:string>WarmupInput count:4:uint32",
    "WarmupInput": "data_type:1:DataType dims:2:int64* zero_data:3:bool|input_data_type"
    " random_data:4:bool|input_data_type input_data_file:5:string|input_data_type",
    "Operations": "op_library_filename:1:string*",
    "TransactionPolicy": "decoupled:1:bool",
    "RepositoryAgents": "agents:1:Agent*",
    "Agent": "name:1:string parameters:2:string>string",
    "ResponseCache": "enable:1:bool",
    "Metrics": "metric_control:1:MetricControl*",
    "MetricControl": "metric_identifier:1:MetricIdentifier"
    " histogram_options:2:HistogramOptions|metric_options",
    "MetricIdentifier": "family:1:string",
    "HistogramOptions": "buckets:1:double*",
    "Optimization": "graph:1:GraphLevel priority:2:Priority cuda:3:Cuda execution_accelerators:4:Accelerators"
    " input_pinned_memory:5:PinnedMemory output_pinned_memory:6:PinnedMemory"
    " gather_kernel_buffer_threshold:7:uint32 eager_batching:8:bool",
    "GraphLevel": "level:1:int32",
    "Cuda": "graphs:1:bool busy_wait_events:2:bool graph_spec:3:GraphSpec* output_copy_stream:4:bool",
    "GraphSpec": "batch_size:1:int32 input:2:string>GraphShape graph_lower_bound:3:LowerBound",
    "GraphShape": "dim:1:int64*",
    "LowerBound": "batch_size:1:int32 input:2:string>GraphShape",
    "Accelerators": "gpu_execution_accelerator:1:Accelerator* cpu_execution_accelerator:2:Accelerator*",
    "Accelerator": "name:1:string parameters:2:string>string",
    "PinnedMemory": "enable:1:bool",
    "SequenceBatching": "direct:3:Direct|strategy_choice oldest:4:Oldest|strategy_choice"
    " max_sequence_idle_microseconds:1:uint64 control_input:2:ControlInput* state:5:State*"
    " iterative_sequence:6:bool",
    "Direct": "max_queue_delay_microseconds:1:uint64 minimum_slot_utilization:2:float",
    "Oldest": "max_candidate_sequences:1:int32 preferred_batch_size:2:int32*"
    " max_queue_delay_microseconds:3:uint64 preserve_ordering:4:bool",
    "ControlInput": "name:1:string control:2:Control*",
    "Control": "kind:1:ControlKind int32_false_true:2:int32* fp32_false_true:3:float*"
    " bool_false_true:5:bool* data_type:4:DataType",
    "State": "input_name:1:string output_name:2:string data_type:3:DataType dims:4:int64*"
    " initial_state:5:InitialState* use_same_buffer_for_input_output:6:bool use_growable_memory:7:bool",
    "InitialState": "data_type:1:DataType dims:2:int64* zero_data:3:bool|state_data"
    " data_file:4:string|state_data name:5:string",
    "Ensemble": "step:1:Step* max_inflight_responses:2:uint32",
    "Step": "model_name:1:string model_version:2:int64 input_map:3:string>string"
    " output_map:4:string>string model_namespace:5:string",
}

FIELD = re.compile(r"(\w+):(\d+):(?:(\w+)>)?(\w+)(\*?)(?:\|(\w+))?")


@cache
def model_config() -> type[Message]:
    """The class of a model configuration, in a pool of its own: others may know one of the same name."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message_factory import GetMessageClass

    file = FileDescriptorProto(name="infold/triton.proto", package=PACKAGE, syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values.split()):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        _fill(file.message_type.add(name=name), fields)
    pool = DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.ModelConfig"))


def _fill(message: DescriptorProto, fields: str) -> None:
    choices: list[str] = []
    for text in fields.split():
        found = FIELD.fullmatch(text)
        assert found is not None, text
        name, number, key, kind, is_list, choice = found.groups()
        if key is not None:
            entry = "".join(word.capitalize() for word in name.split("_")) + "Entry"
            pair = message.nested_type.add(name=entry)
            pair.options.map_entry = True
            _add(pair, "key", 1, key)
            _add(pair, "value", 2, kind)
            kind, is_list = f"{message.name}.{entry}", "*"
        _add(message, name, int(number), kind, is_list=bool(is_list))
        if choice is not None:
            if choice not in choices:
                choices.append(choice)
                message.oneof_decl.add(name=choice)
            message.field[-1].oneof_index = choices.index(choice)


def _add(message: DescriptorProto, name: str, number: int, kind: str, *, is_list: bool = False) -> None:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

    field = message.field.add(name=name, number=number)
    field.label = FieldDescriptorProto.LABEL_REPEATED if is_list else FieldDescriptorProto.LABEL_OPTIONAL
    if kind in ENUMS:
        field.type, field.type_name = FieldDescriptorProto.TYPE_ENUM, f".{PACKAGE}.{kind}"
    elif kind[0].isupper():
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
