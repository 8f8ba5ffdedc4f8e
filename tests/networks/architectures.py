"""Published architectures at their real depth and width, with few pixels so that they run fast.

Each network is an ordinary torch module, written down from its paper. `build()`
gives it weights and statistics like those of a trained one: weights He-initialised
and spread from channel to channel, gamma of both signs with a few channels dead, and
moving statistics that were measured on data and then moved away from it, as those
of a running average are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

__all__ = ["NETWORKS", "NORMS", "Network"]

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
CLASSES = 100

# Why a norm stays: in the direction of the producer / in that of the consumers.
# A sum or a join that others read as well is in front of it, a ReLU behind it.
FORK_THEN_RELU = "shared-output / shift-not-movable"
# Max pooling is in front of it, and one of its scales is negative.
POOL_THEN_RELU = "negative-scale / shift-not-movable"


@dataclass(frozen=True, slots=True)
class Network:
    """One network and what folding must make of it.

    Attributes:
        name: What to call it.
        make: The module, weights as torch draws them.
        shape: Input without its batch axis.
        norms: Number of norms.
        kept: How many of them algebra does not let go, by the reasons (producer / consumer).
        rows: Batch to prove on.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    norms: int
    kept: Mapping[str, int] = field(default_factory=dict)
    rows: int = 4

    def build(self) -> nn.Module:
        """The module in inference mode, with a trained network's numbers; always the same."""
        torch.manual_seed(20150306)
        module = self.make()
        _initialise(module)
        _train(module, torch.randn(max(16, self.rows), *self.shape))
        return module.eval()

    def samples(self) -> Tensor:
        """Inputs to compare on; always the same."""
        return torch.randn(self.rows, *self.shape, generator=torch.Generator().manual_seed(7))


def _initialise(module: nn.Module) -> None:
    for each in module.modules():
        if isinstance(each, NORMS):
            gamma = torch.empty_like(each.weight).uniform_(0.3, 2.0)
            draw = torch.rand_like(gamma)
            gamma[draw < 0.1] *= -1.0
            gamma[draw > 0.98] = 0.0
            each.weight.data = gamma
            each.bias.data.normal_()
        elif isinstance(each, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
            nn.init.kaiming_normal_(each.weight, nonlinearity="relu")
            # Output channels of a trained layer differ: variances from 0.05 to 4 of the usual one.
            spread = torch.exp(torch.empty(each.weight.shape[0]).uniform_(-1.5, 0.7))
            each.weight.data *= spread.reshape(-1, *[1] * (each.weight.ndim - 1))
            if each.bias is not None:
                each.bias.data.normal_(std=0.1)


@torch.no_grad()
def _train(module: nn.Module, data: Tensor) -> None:
    """One step of measuring statistics, which then move on a little."""
    norms = [each for each in module.modules() if isinstance(each, NORMS)]
    for each in norms:
        each.momentum = 1.0
    module.train()
    module(data)
    for each in norms:
        each.momentum = 0.1
        variance = each.running_var.clamp_min(0.05)
        each.running_mean += 0.5 * variance.sqrt() * torch.randn_like(variance)
        each.running_var.copy_(variance * torch.empty_like(variance).uniform_(0.7, 1.4))


# -- building blocks ------------------------------------------------------------------------------


class ConvNorm(nn.Sequential):
    """Convolution, norm, activation; padded so that stride 1 keeps the size."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        layers = [conv, nn.BatchNorm2d(outputs)]
        super().__init__(*layers, *([act()] if act else []))


class Classifier(nn.Sequential):
    """Average over the image, then one dense layer."""

    def __init__(self, features: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(features, CLASSES))


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int, squeezed: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            act(),
            nn.Conv2d(squeezed, channels, 1),
            gate(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.body(x)


# -- residual networks ----------------------------------------------------------------------------


class Residual(nn.Module):
    """He et al. 2015: two 3x3, or the bottleneck 1x1, 3x3, 1x1."""

    def __init__(self, inputs: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        outputs = width * 4 if bottleneck else width
        if bottleneck:
            self.body = nn.Sequential(
                ConvNorm(inputs, width),
                ConvNorm(width, width, 3, stride),
                ConvNorm(width, outputs, act=None),
            )
        else:
            self.body = nn.Sequential(ConvNorm(inputs, width, 3, stride), ConvNorm(width, width, 3, act=None))
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet(depths: tuple[int, ...], *, bottleneck: bool) -> nn.Module:
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for place in range(depth):
            stride = 2 if stage and not place else 1
            layers.append(Residual(inputs, width, stride, bottleneck=bottleneck))
            inputs = width * 4 if bottleneck else width
    return nn.Sequential(*layers, Classifier(inputs))


class Preactivated(nn.Module):
    """He et al. 2016: norm and activation in front of each convolution."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * 4
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False),
        )
        same = stride == 1 and inputs == outputs
        self.skip = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = self.first(x)
        return self.body(active) + (x if self.skip is None else self.skip(active))


def resnet_v2() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, depth in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for place in range(depth):
            layers.append(Preactivated(inputs, width, 2 if stage and not place else 1))
            inputs = width * 4
    return nn.Sequential(*layers, nn.BatchNorm2d(inputs), nn.ReLU(), Classifier(inputs))


class Residual1d(nn.Module):
    """Two dilated convolutions along a signal."""

    def __init__(self, inputs: int, outputs: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(inputs, outputs, 7, stride, 3 * dilation, dilation, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
            nn.Conv1d(outputs, outputs, 7, 1, 3, bias=False),
            nn.BatchNorm1d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv1d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm1d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet_1d() -> nn.Module:
    """Wang et al. 2017, for time series: 12 leads of an electrocardiogram, say."""
    layers: list[nn.Module] = [
        nn.Conv1d(12, 64, 15, 2, 7, bias=False),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.MaxPool1d(3, 2, 1),
    ]
    inputs = 64
    for stage in range(4):
        for place in range(2):
            outputs = 64 * 2**stage
            layers.append(Residual1d(inputs, outputs, 2 if stage and not place else 1, 1 + place))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


class Residual3d(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm3d(outputs),
            nn.ReLU(),
            nn.Conv3d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm3d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.skip = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet_3d() -> nn.Module:
    """Tran et al. 2018, R3D-18."""
    layers: list[nn.Module] = [
        nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False),
        nn.BatchNorm3d(64),
        nn.ReLU(),
    ]
    inputs = 64
    for stage in range(4):
        for place in range(2):
            outputs = 64 * 2**stage
            layers.append(Residual3d(inputs, outputs, 2 if stage and not place else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(inputs, CLASSES))


# -- networks of depthwise convolutions -----------------------------------------------------------


def mobilenet_v1() -> nn.Module:
    """Howard et al. 2017."""
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2)]
    inputs = 32
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for outputs, stride in plan:
        layers += [ConvNorm(inputs, inputs, 3, stride, inputs), ConvNorm(inputs, outputs)]
        inputs = outputs
    return nn.Sequential(*layers, Classifier(inputs))


class Inverted(nn.Module):
    """Sandler et al. 2018: widen, depthwise, gate, narrow."""

    def __init__(
        self,
        inputs: int,
        wide: int,
        outputs: int,
        kernel: int,
        stride: int,
        act: Callable[[], nn.Module] = nn.ReLU6,
        gate: Callable[[int], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *([ConvNorm(inputs, wide, act=act)] if wide != inputs else []),
            ConvNorm(wide, wide, kernel, stride, wide, act=act),
            *([gate(wide)] if gate else []),
            ConvNorm(wide, outputs, act=None),
        )
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobilenet_v2() -> nn.Module:
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.ReLU6)]
    inputs = 32
    plan = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2)]
    for widen, outputs, depth, stride in [*plan, (6, 320, 1, 1)]:
        for place in range(depth):
            layers.append(Inverted(inputs, inputs * widen, outputs, 3, 1 if place else stride))
            inputs = outputs
    return nn.Sequential(*layers, ConvNorm(inputs, 1280, act=nn.ReLU6), Classifier(1280))


def mobilenet_v3_small() -> nn.Module:
    """Howard et al. 2019."""
    hard, soft = nn.Hardswish, nn.ReLU
    plan = [
        (16, 16, 3, 2, soft, True),
        (72, 24, 3, 2, soft, False),
        (88, 24, 3, 1, soft, False),
        (96, 40, 5, 2, hard, True),
        (240, 40, 5, 1, hard, True),
        (240, 40, 5, 1, hard, True),
        (120, 48, 5, 1, hard, True),
        (144, 48, 5, 1, hard, True),
        (288, 96, 5, 2, hard, True),
        (576, 96, 5, 1, hard, True),
        (576, 96, 5, 1, hard, True),
    ]
    layers: list[nn.Module] = [ConvNorm(3, 16, 3, 2, act=hard)]
    inputs = 16
    for wide, outputs, kernel, stride, act, gated in plan:
        gate = (lambda c: Gate(c, max(8, c // 4 // 8 * 8), nn.ReLU, nn.Hardsigmoid)) if gated else None
        layers.append(Inverted(inputs, wide, outputs, kernel, stride, act, gate))
        inputs = outputs
    layers += [ConvNorm(inputs, 576, act=hard), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(576, 1024), hard(), nn.Dropout(0.2), nn.Linear(1024, CLASSES))


def efficientnet_b0() -> nn.Module:
    """Tan and Le 2019."""
    plan = [
        (1, 16, 1, 1, 3),
        (6, 24, 2, 2, 3),
        (6, 40, 2, 2, 5),
        (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5),
        (6, 192, 4, 2, 5),
        (6, 320, 1, 1, 3),
    ]
    layers: list[nn.Module] = [ConvNorm(3, 32, 3, 2, act=nn.SiLU)]
    inputs = 32
    for widen, outputs, depth, stride, kernel in plan:
        for place in range(depth):
            gate = partial(Gate, squeezed=inputs // 4, act=nn.SiLU, gate=nn.Sigmoid)
            step = 1 if place else stride
            layers.append(Inverted(inputs, inputs * widen, outputs, kernel, step, nn.SiLU, gate))
            inputs = outputs
    return nn.Sequential(*layers, ConvNorm(inputs, 1280, act=nn.SiLU), Classifier(1280))


class Separable(nn.Sequential):
    """Depthwise and pointwise without a norm in between."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )


class XceptionBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int, stride: int, *, active: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(depth):
            if place or active:
                layers.append(nn.ReLU())
            layers.append(Separable(inputs if not place else outputs, outputs))
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.body = nn.Sequential(*layers)
        same = stride == 1 and inputs == outputs
        self.skip = nn.Identity() if same else ConvNorm(inputs, outputs, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.skip(x)


def xception() -> nn.Module:
    """Chollet 2017."""
    return nn.Sequential(
        ConvNorm(3, 32, 3, 2),
        ConvNorm(32, 64, 3),
        XceptionBlock(64, 128, 2, 2, active=False),
        XceptionBlock(128, 256, 2, 2),
        XceptionBlock(256, 728, 2, 2),
        *(XceptionBlock(728, 728, 3, 1) for _ in range(8)),
        XceptionBlock(728, 1024, 2, 2),
        Separable(1024, 1536),
        nn.ReLU(),
        Separable(1536, 2048),
        nn.ReLU(),
        Classifier(2048),
    )


class ShuffleUnit(nn.Module):
    """Ma et al. 2018: half of the channels pass by, then both halves are shuffled."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        taken = inputs if stride > 1 else half
        self.stride = stride
        self.body = nn.Sequential(
            ConvNorm(taken, half), ConvNorm(half, half, 3, stride, half, act=None), ConvNorm(half, half)
        )
        if stride > 1:
            self.skip = nn.Sequential(
                ConvNorm(inputs, inputs, 3, stride, inputs, act=None), ConvNorm(inputs, half)
            )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            return shuffled(torch.cat((self.skip(x), self.body(x)), 1), 2)
        passed, taken = x.chunk(2, 1)
        return shuffled(torch.cat((passed, self.body(taken)), 1), 2)


def shuffled(x: Tensor, groups: int) -> Tensor:
    batch, channels, height, width = x.shape
    apart = x.view(batch, groups, channels // groups, height, width)
    return apart.transpose(1, 2).reshape(batch, channels, height, width)


def shufflenet_v2() -> nn.Module:
    layers: list[nn.Module] = [ConvNorm(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1)]
    inputs = 24
    for outputs, depth in ((116, 4), (232, 8), (464, 4)):
        for place in range(depth):
            layers.append(ShuffleUnit(inputs, outputs, 1 if place else 2))
            inputs = outputs
    return nn.Sequential(*layers, ConvNorm(inputs, 1024), Classifier(1024))


# -- networks of branches -------------------------------------------------------------------------


class DenseLayer(nn.Module):
    """Huang et al. 2017: reads everything before it, adds `growth` channels."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x, self.body(x)), 1)


def densenet_121() -> nn.Module:
    growth, channels = 32, 64
    layers: list[nn.Module] = [ConvNorm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    for block, depth in enumerate((6, 12, 24, 16)):
        if block:
            layers += [
                nn.BatchNorm2d(channels),
                nn.ReLU(),
                nn.Conv2d(channels, channels // 2, 1, bias=False),
                nn.AvgPool2d(2),
            ]
            channels //= 2
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
    return nn.Sequential(*layers, nn.BatchNorm2d(channels), nn.ReLU(), Classifier(channels))


class InceptionBlock(nn.Module):
    """Szegedy et al. 2015 with norms (Ioffe and Szegedy 2015): four branches, joined."""

    def __init__(
        self, inputs: int, one: int, three: tuple[int, int], five: tuple[int, int], pool: int
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                ConvNorm(inputs, one),
                nn.Sequential(ConvNorm(inputs, three[0]), ConvNorm(three[0], three[1], 3)),
                nn.Sequential(
                    ConvNorm(inputs, five[0]), ConvNorm(five[0], five[1], 3), ConvNorm(five[1], five[1], 3)
                ),
                nn.Sequential(nn.AvgPool2d(3, 1, 1), ConvNorm(inputs, pool)),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def inception() -> nn.Module:
    return nn.Sequential(
        ConvNorm(3, 64, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        ConvNorm(64, 64),
        ConvNorm(64, 192, 3),
        nn.MaxPool2d(3, 2, 1),
        InceptionBlock(192, 64, (96, 128), (16, 32), 32),
        InceptionBlock(256, 128, (128, 192), (32, 96), 64),
        nn.MaxPool2d(3, 2, 1),
        InceptionBlock(480, 192, (96, 208), (16, 48), 64),
        InceptionBlock(512, 160, (112, 224), (24, 64), 64),
        InceptionBlock(512, 128, (128, 256), (24, 64), 64),
        InceptionBlock(512, 112, (144, 288), (32, 64), 64),
        InceptionBlock(528, 256, (160, 320), (32, 128), 128),
        nn.MaxPool2d(3, 2, 1),
        InceptionBlock(832, 256, (160, 320), (32, 128), 128),
        InceptionBlock(832, 384, (192, 384), (48, 128), 128),
        Classifier(1024),
    )


class UNet(nn.Module):
    """Ronneberger et al. 2015, with norms, also behind the transposed convolutions."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            self._pair(inputs, outputs) for inputs, outputs in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.grow = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose2d(wide, wide // 2, 2, 2), nn.BatchNorm2d(wide // 2), nn.ReLU())
            for wide in widths[:0:-1]
        )
        self.up = nn.ModuleList(self._pair(wide, wide // 2) for wide in widths[:0:-1])
        self.head = nn.Conv2d(width, 2, 1)
        self.pool = nn.MaxPool2d(2)

    @staticmethod
    def _pair(inputs: int, outputs: int) -> nn.Module:
        return nn.Sequential(ConvNorm(inputs, outputs, 3), ConvNorm(outputs, outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            seen.append(x)
        for grow, block, skip in zip(self.grow, self.up, seen[-2::-1], strict=True):
            x = block(torch.cat((skip, grow(x)), 1))
        return self.head(x)


# -- points and tokens ----------------------------------------------------------------------------


def point_layers(widths: tuple[int, ...]) -> nn.Sequential:
    pairs = pairwise(widths)
    layers = [(nn.Conv1d(a, b, 1), nn.BatchNorm1d(b), nn.ReLU()) for a, b in pairs]
    return nn.Sequential(*(each for layer in layers for each in layer))


class Turn(nn.Module):
    """The small network that turns the points, or their features, into place."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self.points = point_layers((size, 64, 128, 1024))
        self.dense = nn.Sequential(
            nn.Linear(1024, 512),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Linear(512, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, size * size),
        )

    def forward(self, x: Tensor) -> Tensor:
        flat = self.dense(self.points(x).amax(2))
        turn = 0.1 * flat.view(-1, self.size, self.size) + torch.eye(self.size)
        return torch.bmm(turn, x)


class PointNet(nn.Module):
    """Qi et al. 2017."""

    def __init__(self) -> None:
        super().__init__()
        self.turn_input = Turn(3)
        self.first = point_layers((3, 64, 64))
        self.turn_features = Turn(64)
        self.second = point_layers((64, 64, 128, 1024))
        self.head = nn.Sequential(
            nn.Linear(1024, 512, bias=False),
            nn.BatchNorm1d(512),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Linear(512, 256),
            nn.Dropout(0.3),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        features = self.second(self.turn_features(self.first(self.turn_input(x))))
        return self.head(features.amax(2))


class LinearNorm(nn.Module):
    """A dense layer on tokens, the norm on all tokens of the batch in one row each."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.dense = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dense(x)
        return self.norm(y.flatten(0, 1)).reshape_as(y)


class NormLinear(nn.Sequential):
    """The norm in front of the dense layer."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.BatchNorm1d(inputs), nn.Linear(inputs, outputs))


class Attention(nn.Module):
    """Graham et al. 2021; with `size`, queries come from a coarser grid of tokens."""

    def __init__(self, inputs: int, outputs: int, heads: int, key: int, value: int, size: int = 0) -> None:
        super().__init__()
        self.heads, self.key, self.value, self.size = heads, key, value, size
        self.coarse = size > 0
        if self.coarse:
            self.kv = LinearNorm(inputs, heads * (key + value))
            self.q = LinearNorm(inputs, heads * key)
        else:
            self.qkv = LinearNorm(inputs, heads * (2 * key + value))
        self.out = nn.Sequential(nn.Hardswish(), LinearNorm(heads * value, outputs))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        if self.coarse:
            kv = self.kv(x).view(batch, tokens, self.heads, self.key + self.value)
            k, v = kv.split([self.key, self.value], 3)
            grid = x.view(batch, self.size, self.size, channels)[:, ::2, ::2].reshape(batch, -1, channels)
            q = self.q(grid).view(batch, -1, self.heads, self.key)
        else:
            qkv = self.qkv(x).view(batch, tokens, self.heads, 2 * self.key + self.value)
            q, k, v = qkv.split([self.key, self.key, self.value], 3)
        q, k, v = q.transpose(1, 2), k.permute(0, 2, 3, 1), v.transpose(1, 2)
        weights = torch.softmax(q @ k * self.key**-0.5, -1)
        return self.out((weights @ v).transpose(1, 2).reshape(batch, -1, self.heads * self.value))


class Feed(nn.Sequential):
    def __init__(self, width: int) -> None:
        super().__init__(LinearNorm(width, 2 * width), nn.Hardswish(), LinearNorm(2 * width, width))


class LeViT(nn.Module):
    """LeViT-128S: a stem of convolutions, three stages of attention, two heads."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        act = nn.Hardswish
        self.stem = nn.Sequential(
            ConvNorm(3, 16, 3, 2, act=act),
            ConvNorm(16, 32, 3, 2, act=act),
            ConvNorm(32, 64, 3, 2, act=act),
            ConvNorm(64, 128, 3, 2, act=None),
        )
        grid = pixels // 16
        plan = [(128, 4, 2), (256, 6, 3), (384, 8, 4)]
        self.blocks = nn.ModuleList()
        self.residual: list[bool] = []
        for stage, (width, heads, depth) in enumerate(plan):
            for _ in range(depth):
                self._add(Attention(width, width, heads, 16, 32))
                self._add(Feed(width))
            if stage < 2:
                wider = plan[stage + 1][0]
                self._add(Attention(width, wider, width // 16, 16, 64, grid), residual=False)
                self._add(Feed(wider))
                grid = (grid + 1) // 2
        self.heads = nn.ModuleList([NormLinear(384, CLASSES), NormLinear(384, CLASSES)])

    def _add(self, block: nn.Module, *, residual: bool = True) -> None:
        self.blocks.append(block)
        self.residual.append(residual)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block, residual in zip(self.blocks, self.residual, strict=True):
            x = x + block(x) if residual else block(x)
        x = x.mean(1)
        return (self.heads[0](x) + self.heads[1](x)) / 2


# -- everything that lies between a norm and its linear op ----------------------------------------


class Crossings(nn.Module):
    """No published network: norms that stand away from the op that can absorb them."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(3, 48, 3, 2, 1, groups=3)
        self.behind_shuffle = nn.BatchNorm2d(48)
        self.left = nn.Conv2d(48, 32, 1, bias=False)
        self.right = nn.Conv2d(48, 64, 3, padding=1, bias=False)
        self.behind_concat = nn.BatchNorm2d(96)
        self.plain = nn.Conv2d(96, 64, 3, padding=1)
        self.strided = nn.Conv2d(96, 64, 1)
        self.behind_sum = nn.BatchNorm2d(64)
        self.deep = nn.Conv2d(64, 128, 1)
        self.behind_average = nn.BatchNorm2d(128)
        self.before_valid = nn.BatchNorm2d(128)
        self.valid = nn.Conv2d(128, 64, 3)
        self.spread = nn.Conv2d(64, 64, 1)
        self.behind_space = nn.BatchNorm2d(16)
        self.narrow = nn.Conv2d(16, 8, 1)
        self.before_flatten = nn.BatchNorm2d(8)
        self.dense = nn.Linear(8 * 28 * 28, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.behind_shuffle(shuffled(self.grouped(x), 3)))
        x = torch.relu(self.behind_concat(torch.cat((self.left(x), self.right(x)), 1)))
        x = torch.relu(self.behind_sum(self.plain(x) + self.strided(x)))
        x = torch.relu(self.behind_average(nn.functional.avg_pool2d(self.deep(x), 2)))
        x = torch.relu(self.valid(self.before_valid(x)))
        x = torch.relu(self.behind_space(nn.functional.pixel_shuffle(self.spread(x), 2)))
        x = torch.tanh(self.narrow(x))
        return self.dense(self.before_flatten(x).flatten(1))


NETWORKS = (
    Network("ResNet-18", partial(resnet, (2, 2, 2, 2), bottleneck=False), (3, 64, 64), 20),
    Network("ResNet-50", partial(resnet, (3, 4, 6, 3), bottleneck=True), (3, 64, 64), 53),
    Network("ResNet-50 v2", resnet_v2, (3, 64, 64), 49, {FORK_THEN_RELU: 16, POOL_THEN_RELU: 1}),
    Network("ResNet-18 1d", resnet_1d, (12, 256), 20),
    Network("R3D-18", resnet_3d, (3, 8, 32, 32), 20),
    Network("MobileNet v1", mobilenet_v1, (3, 64, 64), 27),
    Network("MobileNet v2", mobilenet_v2, (3, 64, 64), 52),
    Network("MobileNet v3 small", mobilenet_v3_small, (3, 64, 64), 34),
    Network("EfficientNet-B0", efficientnet_b0, (3, 64, 64), 49),
    Network("Xception", xception, (3, 64, 64), 40),
    Network("ShuffleNet v2", shufflenet_v2, (3, 64, 64), 56),
    Network("DenseNet-121", densenet_121, (3, 64, 64), 121, {FORK_THEN_RELU: 62}),
    Network("Inception", inception, (3, 96, 96), 66),
    Network("UNet", UNet, (3, 64, 64), 22),
    Network("PointNet", PointNet, (3, 256), 17),
    Network("LeViT-128S", partial(LeViT, 128), (3, 128, 128), 52),
    Network("Crossings", Crossings, (3, 64, 64), 7),
)
