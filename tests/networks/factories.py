"""Whole networks by name, as `infold convert networks.factories:unet` takes them."""

from __future__ import annotations

from torch import nn

from networks.architectures import NETWORKS

__all__ = ["mobilenet_v2", "pointnet", "resnet_1d", "resnet_3d", "resnet_18", "unet"]


def _built(name: str) -> nn.Module:
    return next(network for network in NETWORKS if network.name == name).build()


def resnet_18() -> nn.Module:
    return _built("ResNet-18")


def mobilenet_v2() -> nn.Module:
    return _built("MobileNet v2")


def unet() -> nn.Module:
    return _built("UNet")


def resnet_1d() -> nn.Module:
    return _built("ResNet-18 1d")


def resnet_3d() -> nn.Module:
    return _built("R3D-18")


def pointnet() -> nn.Module:
    return _built("PointNet")
