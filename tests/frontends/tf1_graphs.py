"""TensorFlow 1 graphs as people wrote them: batch norm, a training flag, update ops, a saver.

`tf.compat.v1.layers` does not work beside Keras 3, so the same graphs are made of what it made them of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.training.moving_averages import assign_moving_average

v1 = tf.compat.v1
MOMENTUM = 0.9


@dataclass(frozen=True)
class Style:
    """How a graph is written.

    Attributes:
        norm: `fused` in both branches of a cond; `written` out on statistics from a cond;
            `nn`: `tf.nn.batch_normalization`; `assigning`: that, with its updates inside the cond.
        resource: Resource variables instead of references.
        functional: The new conditionals (If) instead of Switch and Merge.
        plain: The flag is a placeholder without a default.
        trains: Loss, metric, optimizer and summaries are there too.
    """

    norm: str
    resource: bool = False
    functional: bool = False
    plain: bool = False
    trains: bool = False

    def __str__(self) -> str:
        variables = "resource" if self.resource else "reference"
        branches = "if" if self.functional else "switch"
        flag = "plain" if self.plain else "default"
        return "-".join([self.norm, variables, branches, flag] + ["trains"] * self.trains)


STYLES = [
    Style(norm, resource, functional, plain, trains=plain == functional and norm != "assigning")
    for norm in ("fused", "written", "nn", "assigning")
    for resource in (False, True)
    for functional in (False, True)
    for plain in (False, True)
    if not (norm == "assigning" and functional and not resource)  # TensorFlow itself refuses that
]


def build(style: Style) -> tuple[tf.Graph, Any]:
    """A small network and its session, variables initialized with statistics of wide range."""
    (v1.enable_control_flow_v2 if style.functional else v1.disable_control_flow_v2)()
    graph = tf.Graph()
    with graph.as_default():
        v1.set_random_seed(3)
        x = v1.placeholder(tf.float32, [None, 8, 8, 3], name="x")
        if style.plain:
            flag = v1.placeholder(tf.bool, [], name="training")
        else:
            flag = v1.placeholder_with_default(False, [], name="training")
        h = tf.nn.relu(norm(conv(x, 4, "conv1", style), flag, "bn1", style))
        h = v1.cond(flag, lambda: tf.nn.dropout(h, rate=0.5), lambda: tf.identity(h))
        h = tf.reduce_mean(h, [1, 2])
        with v1.variable_scope("dense", use_resource=style.resource):
            kernel = v1.get_variable("kernel", [4, 5])
        head = Style("written" if style.norm == "fused" else style.norm, style.resource, style.functional)
        h = norm(tf.matmul(h, kernel), flag, "head/bn", head)
        logits = tf.identity(h, name="logits")
        if style.trains:
            train(logits)
        session = v1.Session(graph=graph)
        session.run(v1.global_variables_initializer())
    return graph, session


def conv(x: Any, channels: int, name: str, style: Style) -> Any:
    with v1.variable_scope(name, use_resource=style.resource):
        kernel = v1.get_variable("kernel", [3, 3, x.shape[-1], channels])
        bias = v1.get_variable("bias", [channels], initializer=v1.random_normal_initializer())
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "SAME"), bias)


def parameters(channels: int) -> dict[str, np.ndarray]:
    """Variances from 1e-6 to 1e4, a negative gamma and one that is zero."""
    rng = np.random.default_rng(11)
    gamma = rng.normal(size=channels)
    gamma[:2] = 0.0, -1.3
    return {
        "gamma": gamma.astype(np.float32),
        "beta": rng.normal(size=channels).astype(np.float32),
        "moving_mean": rng.normal(size=channels).astype(np.float32),
        "moving_variance": np.geomspace(1e-6, 1e4, channels).astype(np.float32),
    }


def norm(x: Any, flag: Any, name: str, style: Style) -> Any:
    channels = x.shape[-1]
    with v1.variable_scope(name, use_resource=style.resource):
        gamma, beta, mean, variance = (
            v1.get_variable(key, initializer=value, trainable=not key.startswith("moving"))
            for key, value in parameters(channels).items()
        )
        return FORMS[style.norm](x, flag, gamma, beta, mean, variance)


def fused(x: Any, flag: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    def training() -> Any:
        return v1.nn.fused_batch_norm(x, gamma, beta, epsilon=1e-3, is_training=True)

    def inference() -> Any:
        y, _, _ = v1.nn.fused_batch_norm(
            x, gamma, beta, mean=mean, variance=variance, epsilon=1e-3, is_training=False
        )
        return y, tf.identity(mean), tf.identity(variance)

    y, new_mean, new_variance = v1.cond(flag, training, inference)
    for variable, new in ((mean, new_mean), (variance, new_variance)):
        v1.add_to_collection(
            v1.GraphKeys.UPDATE_OPS, v1.assign_sub(variable, (variable - new) * (1 - MOMENTUM))
        )
    return y


def statistics(x: Any, flag: Any, mean: Any, variance: Any) -> tuple[Any, Any]:
    moments = tf.nn.moments(x, list(range(len(x.shape) - 1)))
    used = []
    for variable, new in zip((mean, variance), moments, strict=True):
        chosen = v1.cond(flag, lambda new=new: new, lambda variable=variable: tf.identity(variable))
        update = assign_moving_average(variable, chosen, MOMENTUM, zero_debias=False)
        v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        used.append(chosen)
    return used[0], used[1]


def written(x: Any, flag: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    m, v = statistics(x, flag, mean, variance)
    return (x - m) / tf.sqrt(v + 1e-5) * gamma + beta


def nn(x: Any, flag: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    m, v = statistics(x, flag, mean, variance)
    return tf.nn.batch_normalization(x, m, v, beta, gamma, 1e-3)


def assigning(x: Any, flag: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> Any:
    def training() -> Any:
        m, v = tf.nn.moments(x, list(range(len(x.shape) - 1)))
        updates = [
            v1.assign(mean, mean * MOMENTUM + m * (1 - MOMENTUM)),
            v1.assign(variance, variance * MOMENTUM + v * (1 - MOMENTUM)),
        ]
        with tf.control_dependencies(updates):
            return tf.identity(m), tf.identity(v)

    m, v = v1.cond(flag, training, lambda: (tf.identity(mean), tf.identity(variance)))
    return tf.nn.batch_normalization(x, m, v, beta, gamma, 1e-3)


FORMS = {"fused": fused, "written": written, "nn": nn, "assigning": assigning}


def train(logits: Any) -> None:
    labels = v1.placeholder(tf.int64, [None], name="labels")
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    loss = tf.reduce_mean(losses, name="loss")
    hits = tf.cast(tf.equal(tf.argmax(logits, 1), labels), tf.float32)
    tf.reduce_mean(hits, name="accuracy")
    v1.summary.scalar("loss", loss)
    with tf.control_dependencies(v1.get_collection(v1.GraphKeys.UPDATE_OPS)):
        v1.train.AdamOptimizer(0.01).minimize(loss, name="step")


def save_checkpoint(graph: tf.Graph, session: Any, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with graph.as_default():
        return str(v1.train.Saver().save(session, str(folder / "model")))


def save_frozen(graph: tf.Graph, session: Any, path: Path, outputs: list[str]) -> str:
    frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), outputs)
    path.write_bytes(frozen.SerializeToString())
    return str(path)


def save_model(graph: tf.Graph, session: Any, folder: Path) -> str:
    with graph.as_default():
        builder = v1.saved_model.Builder(str(folder))
        signature = v1.saved_model.predict_signature_def(
            {"image": graph.get_tensor_by_name("x:0")}, {"scores": graph.get_tensor_by_name("logits:0")}
        )
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
    return str(folder)
