"""corank: trained networks at 4, 3, 2 and 1 bits, without retraining, with low-rank adapters of what rounding loses."""

from importlib.metadata import version

from corank.codecs import Codec, Uniform, register_codec
from corank.diff import diff
from corank.errors import (
    ArtifactError,
    BudgetError,
    ConfigError,
    CorankError,
    CorankWarning,
    DataError,
    ModelError,
    OutputError,
    TrainingError,
)
from corank.evaluation import Evaluation, evaluate
from corank.export.to_packed import to_packed
from corank.export.to_torch import to_float
from corank.hub import from_pretrained, push_to_hub, save_pretrained
from corank.inspect import inspect
from corank.plan import LayerPlan, Plan
from corank.precision import exact_float32
from corank.presets import Preset
from corank.pruning.narrowing import Narrowing
from corank.refine import BlockReconstruction, Refinement
from corank.rounding import Gptq, Nearest, Rounder
from corank.search import CoRa, Greedy, Joint, Search, UniformRanks
from corank.storage.adapter_file import load_adapter, save_adapter
from corank.storage.artifact import load, save
from corank.storage.supernet_file import load_supernet, save_supernet
from corank.training import Recipe
from corank.verbs.adapt import adapt
from corank.verbs.analyse import analyse
from corank.verbs.class_head import align_classes
from corank.verbs.compare import Case, cases, compare
from corank.verbs.draw_tokens import draw_tokens
from corank.verbs.exemplars import choose_exemplars
from corank.verbs.prune import prune
from corank.verbs.quantize import quantize
from corank.verbs.quantize_streamed import quantize_streamed
from corank.verbs.smallest import quantize_smallest
from corank.verbs.stored_recipe import recipe_of
from corank.verbs.subnet_search import search_subnets
from corank.verbs.supernet import extract_subnet, train_supernet
from corank.verbs.train import train
from corank.verbs.train_classes import train_classes
from corank.verbs.tune import Tuned, tune

__version__ = version("corank")

__all__ = [
    "ArtifactError",
    "BlockReconstruction",
    "BudgetError",
    "Case",
    "CoRa",
    "Codec",
    "ConfigError",
    "CorankError",
    "CorankWarning",
    "DataError",
    "Evaluation",
    "Gptq",
    "Greedy",
    "Joint",
    "LayerPlan",
    "ModelError",
    "Narrowing",
    "Nearest",
    "OutputError",
    "Plan",
    "Preset",
    "Recipe",
    "Refinement",
    "Rounder",
    "Search",
    "TrainingError",
    "Tuned",
    "Uniform",
    "UniformRanks",
    "adapt",
    "align_classes",
    "analyse",
    "cases",
    "choose_exemplars",
    "compare",
    "diff",
    "draw_tokens",
    "evaluate",
    "exact_float32",
    "extract_subnet",
    "from_pretrained",
    "inspect",
    "load",
    "load_adapter",
    "load_supernet",
    "prune",
    "push_to_hub",
    "quantize",
    "quantize_smallest",
    "quantize_streamed",
    "recipe_of",
    "register_codec",
    "save",
    "save_adapter",
    "save_pretrained",
    "save_supernet",
    "search_subnets",
    "to_float",
    "to_packed",
    "train",
    "train_classes",
    "train_supernet",
    "tune",
]
