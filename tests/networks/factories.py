"""The networks of PyTorch by name, as `infold convert networks.factories:resnet_18` takes them."""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from networks.architectures import NETWORKS

__all__ = ["factory_name"]


def factory_name(network: str) -> str:
    """`ResNet-18` as an attribute of this module: `resnet_18`."""
    return re.sub(r"\W+", "_", network.lower())


def __getattr__(name: str) -> Callable[[], nn.Module]:
    for network in NETWORKS:
        if factory_name(network.name) == name:
            return network.build
    raise AttributeError(name)
