"""Models from a reference, with their weights and preprocessing."""

from corank.models.loader import Built, Loader, Request
from corank.models.resolve import LOADERS, ResolvedModel, resolve
from corank.models.weights import load_weights

__all__ = ["LOADERS", "Built", "Loader", "Request", "ResolvedModel", "load_weights", "resolve"]
