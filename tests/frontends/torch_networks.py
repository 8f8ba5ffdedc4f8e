"""Networks that the PyTorch tests build by name, as users do: `frontends.torch_networks:layers`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["FOLDED", "KEPT", "WITHOUT_STATISTICS", "Layers", "Written", "layers", "small"]

SEED = 20150306
# Norms of `Layers` that algebra lets go, those it does not, and the one that has nothing to fold.
FOLDED = (
    "conv1d.norm",
    "conv2d.norm",
    "conv3d.norm",
    "bare3d.norm",
    "strided.norm",
    "depthwise.norm",
    "grouped.norm",
    "transposed1d.norm",
    "transposed2d.norm",
    "transposed3d.norm",
    "transposed_grouped.norm",
    "dense.norm",
    "dense_bare.norm",
    "before_conv.norm",
    "before_dense.norm",
    "behind_cat.norm",
    "behind_pool.norm",
    "plain.norm",
    "synchronized.norm",
    "cumulative.norm",
    "written.norm",
    "written_dense.norm",
    "dropped.norm",
    "normed_weight.norm",
)
KEPT = ("tokens.norm", "behind_relu.norm", "alone")
WITHOUT_STATISTICS = "no_statistics.norm"


def small() -> nn.Module:
    """Two convolutions, in training mode as a new module is."""
    torch.manual_seed(SEED)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
    )


class Written(nn.Module):
    """A norm from scratch, as textbooks write it: inference is where no gradients are."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        shape = (1, channels) if dims == 2 else (1, channels, *[1] * (dims - 2))
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.moving_mean = torch.zeros(shape)
        self.moving_var = torch.ones(shape)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            axes = [0, *range(2, x.ndim)]
            mean = x.mean(axes, keepdim=True)
            variance = ((x - mean) ** 2).mean(axes, keepdim=True)
            normal = (x - mean) / torch.sqrt(variance + 2e-5)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean.data
            self.moving_var = 0.9 * self.moving_var + 0.1 * variance.data
        else:
            normal = (x - self.moving_mean) / torch.sqrt(self.moving_var + 2e-5)
            self.moving_mean, self.moving_var = self.moving_mean.data, self.moving_var.data
        return self.gamma * normal + self.beta


class Pair(nn.Module):
    """A linear layer, something between, and a norm."""

    def __init__(self, layer: nn.Module, norm: nn.Module, between: nn.Module | None = None) -> None:
        super().__init__()
        self.layer = layer
        self.between = between or nn.Identity()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.between(self.layer(x)))


class Before(nn.Module):
    """A norm in front of a linear layer."""

    def __init__(self, norm: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.norm(x))


class Joined(nn.Module):
    """A norm on two joined convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.cat((self.left(x), self.right(x)), 1))


class Shared(nn.Module):
    """One norm that two convolutions use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 6, 3), nn.Conv2d(4, 6, 3)
        self.norm = nn.BatchNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.first(x))) + torch.sigmoid(self.norm(self.second(x)))


class Layers(nn.Module):
    """Every kind of layer a norm meets, one branch each, all of them outputs."""

    def __init__(self) -> None:
        super().__init__()
        norm1, norm2, norm3 = nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d
        self.conv1d = Pair(nn.Conv1d(4, 6, 3), norm1(6))
        self.conv2d = Pair(nn.Conv2d(4, 6, 3, bias=False), norm2(6, eps=1e-3))
        self.conv3d = Pair(nn.Conv3d(4, 6, 3, padding=1), norm3(6))
        self.bare3d = Pair(nn.Conv3d(4, 6, 3, bias=False), norm3(6))
        self.strided = Pair(nn.Conv2d(4, 6, 3, 2, 1, 2), norm2(6))
        self.depthwise = Pair(nn.Conv2d(4, 4, 3, padding=1, groups=4), norm2(4))
        self.grouped = Pair(nn.Conv2d(4, 8, 3, groups=2, bias=False), norm2(8))
        self.transposed1d = Pair(nn.ConvTranspose1d(4, 6, 3, 2), norm1(6))
        self.transposed2d = Pair(nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, bias=False), norm2(6))
        self.transposed3d = Pair(nn.ConvTranspose3d(4, 6, 2, 2), norm3(6))
        self.transposed_grouped = Pair(nn.ConvTranspose2d(4, 6, 3, 2, groups=2), norm2(6))
        self.dense = Pair(nn.Linear(8, 6), norm1(6))
        self.dense_bare = Pair(nn.Linear(8, 6, bias=False), norm1(6))
        self.tokens = Pair(nn.Linear(10, 6), norm1(4))
        self.before_conv = Before(norm2(4), nn.Conv2d(4, 5, 3))
        self.before_dense = Before(norm1(8), nn.Linear(8, 5))
        self.behind_relu = Pair(nn.Conv2d(4, 6, 3), norm2(6), nn.ReLU())
        self.behind_cat = Joined()
        self.behind_pool = Pair(nn.Conv2d(4, 6, 3), norm2(6), nn.AvgPool2d(2))
        self.alone = norm2(4)
        self.plain = Pair(nn.Conv2d(4, 6, 3), norm2(6, affine=False))
        self.synchronized = Pair(nn.Conv2d(4, 6, 3), nn.SyncBatchNorm(6))
        self.no_statistics = Pair(nn.Conv2d(4, 6, 3), norm2(6, track_running_stats=False))
        self.cumulative = Pair(nn.Conv2d(4, 6, 3), norm2(6, momentum=None))
        self.written = Pair(nn.Conv2d(4, 6, 3), Written(6, 4))
        self.written_dense = Pair(nn.Linear(8, 6), Written(6, 2))
        self.dropped = Pair(nn.Conv2d(4, 6, 3), norm2(6), nn.Dropout(0.5))
        self.normed_weight = Pair(weight_norm(nn.Conv2d(4, 6, 3)), norm2(6))
        self.shared = Shared()

    def forward(self, line: Tensor, image: Tensor, volume: Tensor, row: Tensor) -> dict[str, Tensor]:
        data = {1: line, 2: image, 3: volume}
        given = {
            "conv1d": 1, "transposed1d": 1, "conv3d": 3, "bare3d": 3, "transposed3d": 3, "tokens": 1
        }  # fmt: skip
        rows = ("dense", "dense_bare", "before_dense", "written_dense")
        return {
            f"{name}_out": each(row if name in rows else data[given.get(name, 2)])
            for name, each in self.named_children()
        }


SHAPES = {"line": (2, 4, 10), "image": (2, 4, 9, 9), "volume": (2, 4, 5, 5, 5), "row": (2, 8)}


@torch.no_grad()
def set_statistics(module: nn.Module) -> nn.Module:
    """Statistics of a wide range: variances from 1e-6 to 1e4, gammas negative and zero."""
    draw = torch.Generator().manual_seed(SEED)
    for each in module.modules():
        mean = getattr(each, "running_mean", getattr(each, "moving_mean", None))
        variance = getattr(each, "running_var", getattr(each, "moving_var", None))
        if mean is None or variance is None:
            continue
        variance.copy_(10 ** (10 * torch.rand(variance.shape, generator=draw) - 6))
        mean.copy_(variance.sqrt() * torch.randn(mean.shape, generator=draw))
        gamma = getattr(each, "gamma", None) if isinstance(each, Written) else each.weight
        beta = getattr(each, "beta", None) if isinstance(each, Written) else each.bias
        if gamma is not None and beta is not None:
            gamma.copy_(torch.randn(gamma.shape, generator=draw) * variance.sqrt().clamp(0.01, 10))
            gamma.view(-1)[0] = 0.0
            gamma.view(-1)[1] = -gamma.view(-1)[1].abs() - 0.1
            beta.copy_(torch.randn(beta.shape, generator=draw))
    return module


def layers() -> nn.Module:
    """All layers, statistics set, left in training mode."""
    torch.manual_seed(SEED)
    return set_statistics(Layers())


class Activated(nn.Module):
    """A norm and its activation in one module: the library's function on tensors of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(4))
        self.register_buffer("running_mean", torch.rand(4))
        self.register_buffer("running_var", torch.rand(4) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.2, 1e-4
        )
        return nn.functional.leaky_relu_(y)


class Pinned(nn.Module):
    """A norm as detection networks have it: buffers only, written as one multiply-add."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(4) + 0.1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias, mean, variance = (
            each.reshape(1, -1, 1, 1)
            for each in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (variance + 1e-3).rsqrt()
        return x * scale + (bias - mean * scale)


class OnTheLast(nn.Module):
    """A norm from scratch on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(5)), nn.Parameter(torch.rand(5))
        self.register_buffer("moving_mean", torch.rand(5))
        self.register_buffer("moving_variance", torch.rand(5) + 0.1)
        self.epsilon = 1e-2

    def forward(self, x: Tensor) -> Tensor:
        normal = (x - self.moving_mean) / torch.sqrt(self.moving_variance + self.epsilon)
        return normal * self.gamma + self.beta


class Own(nn.BatchNorm2d):
    """The library's norm under another name."""


class Unusual(nn.Module):
    """Norms that are no module of the library's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.activated = nn.Conv2d(3, 4, 3), Activated()
        self.second, self.pinned = nn.Conv2d(4, 4, 3), Pinned()
        self.third, self.own = nn.Conv2d(4, 4, 1), Own(4)
        self.dense, self.on_the_last = nn.Linear(5, 5), OnTheLast()

    def forward(self, x: Tensor) -> Tensor:
        x = self.own(self.third(self.pinned(self.second(self.activated(self.first(x))))))
        return self.on_the_last(self.dense(x))


def unusual() -> nn.Module:
    torch.manual_seed(SEED)
    return Unusual()


class Echo(nn.Module):
    """Gives one value twice, an input as it is, and nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> dict[str, Tensor | None]:
        y = self.norm(self.conv(x))
        return {"x": y, "again": y, "input": x, "nothing": None}


class Weighted(nn.Module):
    """Two inputs, of which one has no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor, matrix: Tensor, *, extra: Tensor | None = None) -> Tensor:
        y = self.norm(x) @ matrix
        return y if extra is None else y + extra


class Nested(nn.Module):
    """Takes a pair, and one more by keyword; changes what its shared norm gave in place."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, pair: tuple[Tensor, Tensor], *, bias: Tensor) -> Tensor:
        left, right = pair
        return torch.relu_(self.norm(self.left(left))) + self.norm(self.right(right)) + bias


class Lazy(nn.Module):
    """Sizes are known only once data has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)
        self.norm = nn.LazyBatchNorm2d()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Tokens(nn.Module):
    """Takes integers, and a mask that need not be given."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.conv = nn.Conv1d(6, 4, 3)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = self.embed(ids)
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        y = self.norm(self.conv(x.transpose(1, 2)))
        return y, y.mean(2)


class Half(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.half()


class Brain(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
        self.bfloat16()


class FixedBatch(nn.Module):
    """Takes two rows and no more."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).view(2, 4)


class Spatial(nn.Module):
    """Takes images and lines of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.norm = nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.line, self.line_norm = nn.Conv1d(4, 6, 3), nn.BatchNorm1d(6)
        self.dense, self.dense_norm = nn.Linear(12, 5), nn.BatchNorm1d(5)

    def forward(self, image: Tensor, line: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.norm(self.down(image)))
        up = nn.functional.interpolate(y, scale_factor=2.0)
        pooled = y.mean((2, 3)), torch.relu(self.line_norm(self.line(line))).amax(2)
        return self.dense_norm(self.dense(torch.cat(pooled, 1))), up


class Flat(nn.Sequential):
    """Its dense layer knows one height and width."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 7 * 7, 2))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


class Sized(nn.Module):
    """Does something else to large images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return y if x.shape[2] < 20 else y[:, :, ::2]


class Random(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(super().forward(x), 0.5, True)


def dropping() -> nn.Module:
    return Random(nn.Linear(4, 8), nn.BatchNorm1d(8))


class Training(nn.Module):
    """Trains whatever eval() says."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        self.norm.train()
        return self.norm(x)


class OnTop(nn.Module):
    """A norm written in the top module, beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 5)
        self.register_buffer("moving_mean", torch.rand(5))
        self.register_buffer("moving_var", torch.rand(5) + 0.3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.dense(x) - self.moving_mean) / torch.sqrt(self.moving_var + 1e-5)


class Asking(nn.Module):
    """Drops where it is asked to train, and otherwise a share of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(8, 4), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dense(x))
        if self.training:
            y = nn.functional.dropout(y, 0.5, True)
        return nn.functional.dropout(y, 0.0, True)


class Answering(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": x * 2, "b": x + 1}


class Exotic(nn.Module):
    """An operator that ONNX lacks, in a layer of its own."""

    class Bessel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.bessel_j0(x)

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(4), Exotic.Bessel())

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Deciding(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int]:
        return x * 2, 5


class Pretending(nn.Module):
    """Keeps moving statistics and never looks at them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("moving_mean", torch.zeros(1, 4))
        self.register_buffer("moving_var", torch.ones(1, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(1, keepdim=True)


def pretending() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), Pretending())


def wrapped() -> nn.Module:
    return nn.DataParallel(small())


def with_argument(width: int) -> nn.Module:
    return nn.Linear(width, 1)


def failing() -> nn.Module:
    raise ValueError("the config file is missing")


def not_a_module() -> dict[str, int]:
    return {}


INSTANCE = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).eval()
