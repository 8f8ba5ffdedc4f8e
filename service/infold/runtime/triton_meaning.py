"""What a Triton configuration means here: taken, refused because answers would differ, or noted.

Refused is what Triton would answer otherwise than infold. What only concerns
speed, or how a server is run, is listed under `ignored`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infold.errors import ConfigError
from infold.runtime.model_config import Batching, ModelConfig, SessionConfig
from infold.runtime.options import Device
from infold.runtime.triton_tensors import label_files, plain_name, tensors, warmups, word
from infold.runtime.triton_words import MODEL_FILE, TritonConfig

if TYPE_CHECKING:
    from google.protobuf.message import Message

__all__ = ["understood"]

PLATFORMS, BACKENDS = ("", "onnxruntime_onnx"), ("", "onnxruntime")
THREADS = "intra_op_thread_count"
UNSERVED = {
    "sequence_batching": "sequences are not served",
    "ensemble_scheduling": "ensembles are not served",
    "batch_input": "inputs made of a whole batch are not served",
    "batch_output": "outputs cut by the shape of an input are not served",
    "cc_model_filenames": "a file for each kind of GPU is not served; name one as default_model_filename",
    "model_operations": "libraries of custom operators are not loaded",
    "model_repository_agents": "repository agents are not run",
}
HINTS = ("runtime", "optimization", "response_cache", "model_metrics", "metric_tags")
QUEUE_HINTS = ("timeout_action", "default_timeout_microseconds", "allow_timeout_override")
DYNAMIC_HINTS = ("preserve_ordering", "priority_levels", "default_priority_level", "priority_queue_policy")
GROUP_HINTS = ("rate_limiter", "gpus", "secondary_devices", "profile", "host_policy")


def understood(message: Message, place: str) -> TritonConfig:
    """A parsed configuration in infold's words.

    Args:
        message: Of `triton_schema.model_config`.
        place: Where it stands, for errors.

    Raises:
        ConfigError: It makes no sense, or asks for what is not served; names the field.
    """
    config: Any = message
    _refuse(config, place)
    most = config.max_batch_size
    if most < 0:
        raise ConfigError(f"{place}: max_batch_size", f"{most} is not at least 0")
    inputs = tensors(config.input, f"{place}: input")
    outputs = tensors(config.output, f"{place}: output")
    has_rows = most > 0 or not (inputs and outputs)
    name = config.default_model_filename
    return TritonConfig(
        place,
        config.name,
        most,
        inputs,
        outputs,
        ModelConfig(
            _versions(config.version_policy, f"{place}: version_policy"),
            _batching(config, place, has_rows=has_rows, completes=not (inputs and outputs)),
            _session(config, place),
        ),
        plain_name(name, f"{place}: default_model_filename") if name else MODEL_FILE,
        label_files(config.output, f"{place}: output"),
        warmups(config.model_warmup, f"{place}: model_warmup", most if has_rows else 1),
        _device(config.instance_group, f"{place}: instance_group"),
        tuple(_ignored(config)),
    )


def _refuse(config: Any, place: str) -> None:
    """Pass if nothing is asked for that would make other answers."""
    for name, why in UNSERVED.items():
        if _is_set(config, name):
            raise ConfigError(f"{place}: {name}", why)
    for name, known in (("platform", PLATFORMS), ("backend", BACKENDS)):
        if (value := getattr(config, name)) not in known:
            raise ConfigError(f"{place}: {name}", f"'{value[:100]}' is not served; '{known[1]}' is")
    if config.model_transaction_policy.decoupled:
        raise ConfigError(f"{place}: model_transaction_policy.decoupled", "every request has one answer")
    levels = config.dynamic_batching.priority_levels
    if levels > 1:
        raise ConfigError(f"{place}: dynamic_batching.priority_levels", f"{levels}; all requests are equal")


def _is_set(message: Any, name: str) -> bool:
    """A field is there, or has another value than its default."""
    field = message.DESCRIPTOR.fields_by_name[name]
    value = getattr(message, name)
    if field.message_type is not None and not hasattr(value, "__len__"):
        return bool(message.HasField(name))
    return bool(value)


def _versions(policy: Any, place: str) -> str | tuple[int, ...]:
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return "all"
    if choice != "specific":
        count = policy.latest.num_versions
        return "latest" if count <= 1 else f"latest:{count}"
    numbers = tuple(sorted(set(policy.specific.versions)))
    if not numbers or numbers[0] < 1:
        raise ConfigError(f"{place}.specific.versions", f"{list(numbers)[:10]} are no versions")
    return numbers


def _batching(config: Any, place: str, *, has_rows: bool, completes: bool) -> Batching:
    """Requests are joined where Triton would join them: where `dynamic_batching` is set, or completed."""
    default, dynamic = Batching(), config.dynamic_batching
    most = (config.max_batch_size or default.max_rows) if has_rows else 1
    joins = has_rows and (completes or config.HasField("dynamic_batching"))
    waiting = dynamic.default_queue_policy.max_queue_size
    batching = Batching(
        max_rows=most,
        max_delay_s=dynamic.max_queue_delay_microseconds / 1e6,
        capacity_rows=max(most, waiting or default.capacity_rows),
        join="auto" if joins else "never",
        preferred_rows=tuple(dynamic.preferred_batch_size),
    )
    if problem := batching.problem():
        key, detail = problem
        if key == "max_delay_s":
            raise ConfigError(f"{place}: dynamic_batching.max_queue_delay_microseconds", detail)
        detail = f"{list(batching.preferred_rows)[:10]} are not all between 1 and max_batch_size = {most}"
        raise ConfigError(f"{place}: dynamic_batching.preferred_batch_size", detail)
    return batching


def _session(config: Any, place: str) -> SessionConfig:
    """Instances are runs at once; of onnxruntime's parameters one has its like here."""
    text = config.parameters[THREADS].string_value if THREADS in config.parameters else "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"{place}: parameters.{THREADS}", f"'{text[:100]}' is no number of threads")
    runs = 0
    for index, group in enumerate(config.instance_group):
        if group.count < 0:
            raise ConfigError(f"{place}: instance_group[{index}].count", f"{group.count} is not at least 0")
        runs += group.count
    session = SessionConfig(intra_op_threads=int(text), runs=runs)
    if problem := session.problem():
        where = f"parameters.{THREADS}" if problem[0] == "intra_op_threads" else "instance_group"
        raise ConfigError(f"{place}: {where}", problem[1])
    return session


def _device(groups: Any, place: str) -> Device | None:
    """CUDA where an instance is to run on a GPU, the CPU where all are to run there."""
    kinds = []
    for index, group in enumerate(groups):
        kinds.append(word(group, "kind", f"{place}[{index}]"))
        if group.passive:
            raise ConfigError(f"{place}[{index}].passive", "instances that answer nobody are not served")
    if "KIND_GPU" in kinds:
        return Device.CUDA
    return Device.CPU if kinds and set(kinds) == {"KIND_CPU"} else None


def _ignored(config: Any) -> Iterator[str]:
    """Names of fields that are set and not followed."""
    yield from (name for name in HINTS if _is_set(config, name))
    dynamic = config.dynamic_batching
    yield from (f"dynamic_batching.{name}" for name in DYNAMIC_HINTS if _is_set(dynamic, name))
    policy = dynamic.default_queue_policy
    yield from (
        f"dynamic_batching.default_queue_policy.{name}" for name in QUEUE_HINTS if _is_set(policy, name)
    )
    for index, group in enumerate(config.instance_group):
        yield from (f"instance_group[{index}].{name}" for name in GROUP_HINTS if _is_set(group, name))
    yield from (f"parameters.{name}" for name in sorted(config.parameters) if name != THREADS)
    for index, sample in enumerate(config.model_warmup):
        if not sample.batch_size:
            yield f"model_warmup[{index}]"
