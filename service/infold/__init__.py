"""infold: fold a trained network's batch normalization, prove it, serve it.

This module holds the version and nothing else, so that importing one half of
the product (the converter, the service) never drags in the other.
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
