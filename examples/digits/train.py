"""Train a small digit classifier and export it as unfolded ONNX.

The network carries each batch normalization a folder has to deal with: behind a convolution
without bias, a depthwise convolution, a pointwise convolution with bias and a dense layer.
The trained model goes to `digits.onnx` with every batch normalization in place, and twenty
held-out images with their labels go to `samples.npz`.
"""

from collections import OrderedDict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from onnxscript import ir
from onnxscript.optimizer import remove_unused_nodes
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
SEED = 0
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 5e-3
REQUIRED_ACCURACY = 0.98


def load_split() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns training images and labels, then test images and labels, stratified 75/25."""
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    train_x, test_x, train_y, test_y = map(
        torch.from_numpy,
        train_test_split(images, labels, test_size=0.25, stratify=labels, random_state=SEED),
    )
    return train_x, train_y, test_x, test_y


def block(**layers: nn.Module) -> nn.Sequential:
    """Chains layers under the given names."""
    return nn.Sequential(OrderedDict(layers))


def build_model() -> nn.Sequential:
    """Returns the untrained network, mapping [N, 1, 8, 8] images to [N, 10] logits."""
    conv3x3 = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
    return block(
        stem=block(conv=conv3x3(1, 32), bn=nn.BatchNorm2d(32), relu=nn.ReLU()),
        body=block(conv=conv3x3(32, 48), bn=nn.BatchNorm2d(48), relu=nn.ReLU(), pool=nn.MaxPool2d(2)),
        depthwise=block(conv=conv3x3(48, 48, groups=48), bn=nn.BatchNorm2d(48), relu=nn.ReLU()),
        pointwise=block(conv=nn.Conv2d(48, 64, 1), bn=nn.BatchNorm2d(64), relu=nn.ReLU()),
        pool=nn.MaxPool2d(2),
        flatten=nn.Flatten(),
        head=block(dense=nn.Linear(256, 64), bn=nn.BatchNorm1d(64), relu=nn.ReLU()),
        classifier=nn.Linear(64, 10),
    )


def shift(images: Tensor) -> Tensor:
    """Moves each image by up to one pixel along both axes, filling with background."""
    windows = functional.pad(images, (1, 1, 1, 1)).unfold(2, 8, 1).unfold(3, 8, 1)
    rows, columns = torch.randint(3, (2, len(images)))
    return windows[torch.arange(len(images)), :, rows, columns]


def train(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Fits the model in place and leaves it in evaluation mode."""
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, EPOCHS * steps)
    model.train()
    for _ in range(EPOCHS):
        # The remainder is left out: a batch of three would disturb the moving statistics.
        for batch in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(shift(images[batch])), labels[batch])
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def export(model: nn.Module) -> onnx.ModelProto:
    """Exports the trained model with one ONNX node per layer, named after its module path."""
    program = torch.onnx.export(
        model,
        (torch.zeros(2, 1, 8, 8),),
        dynamo=True,
        optimize=False,  # The optimizer would fold the batch normalizations.
        opset_version=18,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    assert program is not None
    graph = program.model.graph
    # Activations come first among a node's inputs, so they lead from the logits to the image.
    chain: list[ir.Node] = []
    value: ir.Value | None = graph.outputs[0]
    while value is not None and (node := value.producer()) is not None:
        chain.append(node)
        value = node.inputs[0]
    layers = [(path, layer) for path, layer in model.named_modules() if not list(layer.children())]
    for node, (path, layer) in zip(reversed(chain), layers, strict=True):
        node.name = path.replace(".", "/")
        if node.outputs[0] is not graph.outputs[0]:
            node.outputs[0].name = node.name
        if isinstance(layer, nn.Conv2d) and layer.bias is None:
            node.resize_inputs(2)  # The exporter writes an absent bias as expanded zeros.
        if isinstance(layer, nn.Flatten):
            node.op_type = "Flatten"  # The exporter writes a Reshape to a computed shape.
            node.resize_inputs(1)
            node.attributes.clear()
            node.attributes.add(ir.AttrInt64("axis", 1))
    remove_unused_nodes(program.model)
    proto = ir.to_proto(program.model)
    # The metadata quotes stack traces, and with them the paths of this installation.
    whole = proto.graph
    for part in (whole, *whole.node, *whole.input, *whole.output, *whole.value_info):
        part.ClearField("metadata_props")
    return proto


def main() -> None:
    """Trains, checks and writes both files next to this script."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_x, train_y, test_x, test_y = load_split()
    model = build_model()
    train(model, train_x, train_y)
    logits = model(test_x).detach()
    accuracy = (logits.argmax(1) == test_y).float().mean().item()
    assert accuracy >= REQUIRED_ACCURACY, f"test accuracy is only {accuracy:.2%}"

    proto = export(model)
    onnx.checker.check_model(proto, full_check=True)
    picks = torch.cat([(test_y == digit).nonzero()[:2, 0] for digit in range(10)])
    samples: dict[str, Any] = {"in.image": test_x[picks].numpy(), "label": test_y[picks].numpy()}
    outputs: Any = ReferenceEvaluator(proto).run(None, {"image": samples["in.image"]})
    np.testing.assert_allclose(outputs[0], logits[picks].numpy(), rtol=1e-5, atol=1e-5)

    files = (HERE / "digits.onnx", HERE / "samples.npz")
    onnx.save(proto, files[0])
    np.savez(files[1], **samples)
    sizes = ", ".join(f"{file.name} {file.stat().st_size} bytes" for file in files)
    print(f"test accuracy {accuracy:.2%} on {len(test_y)} images; {sizes}")


if __name__ == "__main__":
    main()
