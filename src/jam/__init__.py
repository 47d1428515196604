"""Jam: who is calling, and may they? Authentication and access control, for Flask."""

from jam.identity import ANONYMOUS, Identity
from jam.jam import Jam

__all__ = ["ANONYMOUS", "Identity", "Jam", "__version__"]

__version__ = "0.1.0"
