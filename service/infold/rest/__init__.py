"""HTTP: the skin over the serving floor."""

from infold.rest.app import create_app

__all__ = ["create_app"]
