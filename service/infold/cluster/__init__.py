"""Adapters for engines that spread the service over machines: Ray Serve.

`ray_serve` is the one to name in a Serve config file. Nothing below this floor knows of
it, and nothing of it is imported by `infold serve`.
"""

__all__: list[str] = []
