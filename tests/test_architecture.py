"""The rules of docs/architecture.md that a machine can hold: import order, sizes, a test and a page each."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "corank"

# Low to high. A file may import what stands on a lower line, and its own package. Names are files or packages
# of src/corank, without `.py`; `storage.bits` is the one part of a package with a place of its own.
ORDER = (
    ("errors",),
    ("registry",),
    ("config",),
    ("progress", "sizes", "bisection"),
    (
        *("processes", "compiled", "autograd", "devices", "files", "memory", "notes", "padding", "precision"),
        *("transfer", "watching"),
    ),
    ("kernels", "matrix"),
    ("operators",),
    ("statistics",),
    ("codecs",),
    ("coded_weight",),
    ("rounding", "adapters"),
    ("plan",),
    ("storage.bits",),
    ("checkpoint",),
    ("identity",),
    ("layers",),
    ("attacks", "losses"),
    ("calibration",),
    ("coding",),
    ("search",),
    ("training",),
    ("refine", "pruning", "analysis"),
    ("presets",),
    ("data",),
    ("models",),
    ("storage",),
    ("evaluation", "inspect"),
    ("quantization",),
    ("export",),
    ("runtime", "hub", "hf", "diff"),
    ("tuning",),
    ("verbs",),
    ("reports",),
    ("cli",),
    ("__main__",),
)
# The same inside the packages where a call comes by: modules of the package, low to high; others stand in none.
INSIDE = {
    "calibration": (
        ("blocks", "same_inputs", "samples", "seeds", "thread_state", "layer_rows"),
        ("augment", "context", "labels", "norms", "paused", "teacher", "collect"),
        ("batches", "interleaved", "repeated", "streamed"),
        ("layerwise",),
    ),
    "coding": (("place",), ("layer", "layer_inputs", "waiting"), ("install", "kept"), ("sequence",), ("plan",)),
    "search": (
        ("allocation",),
        ("problem",),
        ("base", "posed", "knapsack", "composed"),
        ("candidates", "greedy", "uniform_ranks"),
        ("cora", "rates"),
        ("joint",),
    ),
    "refine": (
        ("block_inputs", "draws", "refinement"),
        ("judge", "trainable_layer", "task_factors"),
        ("trainable_model",),
        ("features", "blocks"),
        ("loop",),
        ("post_training",),
    ),
    "training": (
        (
            "weights",
            "inputs",
            "penalties",
            "callbacks",
            "errors_of_layers",
            "norms",
            "synchronized",
            "teacher_cache",
            "top_logits",
        ),
        ("described", "shared_step"),
        ("elastic",),
        ("subnets",),
        ("recipe",),
        ("recipes", "state", "checks"),
        ("failures", "methods", "objective", "optimizers", "recompute", "restored", "short_numbers", "start"),
        ("feed", "finish", "supernet"),
        ("ahead",),
        ("loop",),
    ),
    "quantization": (("template", "float_parts"), ("request",), ("to_size",), ("encode",), ("to_rate",)),
    "verbs": (
        ("adapter_ranks", "arguments", "class_head", "jobs", "labelled", "training_data", "tuning_data"),
        ("draw_tokens", "exemplars", "opening", "scoring", "stored_recipe"),
        ("adapting_run", "finishing", "training_run"),
        ("training_size",),
        ("adapt", "train", "supernet", "pruning_run", "analyse"),
        ("prune", "train_classes", "subnet_search"),
        ("fewer_channels",),
        ("quantize",),
        ("streamed_parts", "smallest", "compare", "tuning_request"),
        ("tune", "stream_rates"),
        ("layer_stream",),
        ("quantize_streamed",),
    ),
}
TIERS = {name: tier for tier, names in enumerate(ORDER) for name in names}
ANYTHING = "corank"  # the package's own __init__ may import anything, as may corank.testing

REGISTRIES = (
    ("corank.codecs", "CODECS"),
    ("corank.rounding", "ROUNDERS"),
    ("corank.search", "SEARCHES"),
    ("corank.storage.coders", "CODERS"),
    ("corank.training.weights", "WEIGHTS"),
    ("corank.training.inputs", "INPUTS"),
    ("corank.training.penalties", "PENALTIES"),
    ("corank.training.callbacks", "CALLBACKS"),
)
BASES = {
    "CODECS": "Codec", "ROUNDERS": "Rounder", "SEARCHES": "Search", "CODERS": "SymbolCoder",
    "WEIGHTS": "WeightTraining", "INPUTS": "InputTraining", "PENALTIES": "Penalty", "CALLBACKS": "Callback",
}  # fmt: skip
UNLISTED = {"TensorBoard"}  # given to the call, since it holds a path; no recipe names it

FILE_LINES = 320
FUNCTION_LINES = 60
ARGUMENTS = 5

# What users call may take more: the public functions, and the functions that are commands.
PUBLIC_CALLS = {
    ("data/records.py", "pack"),
    ("data/resolve.py", "load_samples"),
    ("evaluation/accuracy.py", "evaluate"),
    ("export/onnx.py", "export_onnx"),
    ("export/onnx_matmulnbits.py", "export_onnx_matmulnbits"),
    ("export/openvino.py", "export_openvino"),
    ("hub/repository.py", "from_pretrained"),
    ("hub/repository.py", "push_to_hub"),
    ("runtime.py", "session"),
    ("verbs/adapt.py", "adapt"),
    ("verbs/analyse.py", "analyse"),
    ("verbs/compare.py", "compare"),
    ("verbs/prune.py", "prune"),
    ("verbs/draw_tokens.py", "draw_tokens"),
    ("verbs/exemplars.py", "choose_exemplars"),
    ("verbs/quantize.py", "quantize"),
    ("verbs/quantize_streamed.py", "quantize_streamed"),
    ("verbs/smallest.py", "quantize_smallest"),
    ("verbs/subnet_search.py", "search_subnets"),
    ("verbs/supernet.py", "train_supernet"),
    ("verbs/train.py", "train"),
    ("verbs/tune.py", "tune"),
    ("verbs/train_classes.py", "train_classes"),
    *(
        (f"cli/{name}.py", name)
        for name in (
            *("compare", "diff", "evaluate", "export", "import_peft", "inspect", "pack", "predict", "prune"),
            *("adapt", "quantize", "train", "tune", "analyse"),
        )
    ),
    *(("cli/supernet.py", name) for name in ("train", "search", "extract")),
}


def source_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`corank.layers.conv` for src/corank/layers/conv.py; a package's name for its __init__.py."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit(module: str) -> str:
    """The entry of ORDER that a module of corank belongs to; "corank" for the package itself."""
    parts = module.split(".")[1:]
    if not parts:
        return ANYTHING
    if parts[:2] == ["storage", "bits"]:
        return "storage.bits"
    return parts[0]


def is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imported_modules(source: str, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Line and full name of every module of corank that the source imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                package = here[: len(here) - node.level + 1]
                base = ".".join([*package, base] if base else package)
            members = [f"{base}.{alias.name}" for alias in node.names]
            names = [member if is_module(member) else base for member in members]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "corank":
                yield node.lineno, name


def order_errors(source: str, module: str, is_package: bool) -> list[str]:
    """What is wrong with the imports of one module, one sentence each."""
    own = unit(module)
    if own in (ANYTHING, "testing"):
        return []
    if own not in TIERS:
        return [f"{module}: {own!r} has no place in the import order; add it to ORDER and docs/architecture.md"]
    errors = []
    for line, name in imported_modules(source, module, is_package):
        other = unit(name)
        if other == own:
            continue
        if other == ANYTHING and TIERS[own] >= TIERS["cli"]:
            continue  # the command line is written against the public names
        if other in (ANYTHING, "testing"):
            errors.append(f"{module}:{line} imports {name}, which nothing below the command line may")
        elif other not in TIERS:
            errors.append(f"{module}:{line} imports {name}: add {other!r} to ORDER and docs/architecture.md")
        elif TIERS[other] >= TIERS[own]:
            errors.append(f"{module}:{line} imports {name}, but {other!r} does not stand below {own!r}")
    return errors


def inner_errors(package: str, source: str, module: str) -> list[str]:
    """What is wrong with the imports of one module inside its own package, one sentence each."""
    tiers = {name: tier for tier, names in enumerate(INSIDE[package]) for name in names}
    own = module.split(".")[2]
    if own not in tiers:
        return [f"{module} has no place in its package; add it to INSIDE"]
    errors = []
    for line, name in imported_modules(source, module, is_package=False):
        parts = name.split(".")
        if parts[1:2] != [package]:
            continue
        other = parts[2] if len(parts) > 2 else None
        if other is None:
            errors.append(f"{module}:{line} imports its own package; name the module")
        elif tiers.get(other, -1) >= tiers[own]:
            errors.append(f"{module}:{line} imports {name}, but {other!r} does not stand below {own!r}")
    return errors


def oversized_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, line and length, docstring not counted, of the functions that are too long."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            documentation = ast.get_docstring(node, clean=False)
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            length -= len(documentation.splitlines()) if documentation else 0
            if length > FUNCTION_LINES:
                yield node.name, node.lineno, length


def long_argument_lists(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, line and number of arguments of the functions that take too many; `self` does not count."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls")])
            if count > ARGUMENTS:
                yield node.name, node.lineno, count


def registered() -> Iterator[tuple[str, str, type]]:
    for package, registry in REGISTRIES:
        for name, cls in vars(importlib.import_module(package))[registry].items():
            yield package, name, cls


def test_imports_point_one_way() -> None:
    errors = []
    for path in source_files():
        errors += order_errors(path.read_text(), module_name(path), path.name == "__init__.py")
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize("package", INSIDE)
def test_imports_point_one_way_inside(package: str) -> None:
    errors = []
    for path in sorted((PACKAGE / package).glob("*.py")):
        if path.name != "__init__.py":
            errors += inner_errors(package, path.read_text(), module_name(path))
    assert not errors, "\n".join(errors)


@pytest.mark.parametrize(
    ("module", "statement", "allowed"),
    [
        ("corank.quantization.template", "from corank.quantization.encode import encode", False),
        ("corank.quantization.encode", "from corank.quantization.template import PlanTemplate", True),
        ("corank.quantization.encode", "from corank.quantization import template", True),
        ("corank.quantization.encode", "import corank.quantization", False),
        ("corank.quantization.nowhere", "import torch", False),
    ],
)
def test_inner_errors_sees(module: str, statement: str, allowed: bool) -> None:
    assert (inner_errors("quantization", statement, module) == []) is allowed


@pytest.mark.parametrize(
    ("module", "statement", "allowed"),
    [
        ("corank.codecs.uniform", "from corank.errors import ConfigError", True),
        ("corank.codecs.uniform", "from ..errors import ConfigError", True),
        ("corank.codecs.uniform", "from .base import Codec", True),
        ("corank.layers.conv", "from corank.storage.bits import pack", True),
        ("corank.layers.conv", "from corank.storage.artifact import save", False),
        ("corank.layers.conv", "from corank import storage", False),
        ("corank.codecs.uniform", "from ..rounding import Nearest", False),
        ("corank.codecs.uniform", "def late():\n    import corank.rounding", False),
        ("corank.rounding.gptq", "import corank.adapters.low_rank", False),
        ("corank.search.cora", "from corank.refine import loop", False),
        ("corank.cli.demo", "from corank.testing import check_codec", False),
        ("corank.verbs.smallest", "from corank.verbs.quantize import quantize", True),
        ("corank.quantization.encode", "from corank.verbs.quantize import quantize", False),
        ("corank.sidecar", "import torch", False),
        ("corank.cli.demo", "import corank.sidecar", False),
        ("corank.cli.demo", "from corank import quantize_model_of_any_kind", True),
        ("corank.reports.table", "import corank", False),
        ("corank.testing.codecs", "import corank.codecs", True),
    ],
)
def test_order_errors_sees(module: str, statement: str, allowed: bool) -> None:
    assert (order_errors(statement, module, is_package=False) == []) is allowed


def test_files_and_functions_stay_readable() -> None:
    errors = []
    for path in source_files():
        source = path.read_text()
        lines = source.count("\n")
        if lines > FILE_LINES:
            errors.append(f"{path.relative_to(ROOT)}: {lines} lines, at most {FILE_LINES}")
        for name, line, length in oversized_functions(source):
            errors.append(f"{path.relative_to(ROOT)}:{line} {name}: {length} lines, at most {FUNCTION_LINES}")
    assert not errors, "\n".join(errors)


def test_nothing_inside_takes_a_long_argument_list() -> None:
    errors = []
    for path in source_files():
        place = path.relative_to(PACKAGE).as_posix()
        for name, line, count in long_argument_lists(path.read_text()):
            if (place, name) not in PUBLIC_CALLS:
                errors.append(f"{place}:{line} {name} takes {count} arguments, at most {ARGUMENTS}")
    assert not errors, "\n".join(errors)


def test_long_argument_lists_counts_all_kinds() -> None:
    assert list(long_argument_lists("def f(self, a, b, /, c, *, d, e, f): ...")) == [("f", 1, 6)]
    assert not list(long_argument_lists("def f(self, a, b, /, c, *rest, d, e, **more): ..."))


def test_oversized_functions_counts_code_not_docstring() -> None:
    text = '    """one\n' + "    more\n" * FUNCTION_LINES + '    """\n'
    assert not list(oversized_functions("def short():\n" + text + "    return 1\n"))
    assert list(oversized_functions("def long():\n" + "    x = 1\n" * FUNCTION_LINES))


@pytest.mark.parametrize(("package", "registry"), REGISTRIES)
def test_every_method_is_registered(package: str, registry: str) -> None:
    """Each concrete subclass of the package's abstract base is in the registry."""
    module = importlib.import_module(package)
    classes = set(vars(module)[registry].values())
    assert classes, f"{package}.{registry} is empty"
    pending, missing = [vars(module)[BASES[registry]]], []
    while pending:
        for cls in pending.pop().__subclasses__():
            pending.append(cls)
            ours = cls.__module__.startswith(package + ".")
            if ours and not cls.__abstractmethods__ and cls not in classes and cls.__name__ not in UNLISTED:
                missing.append(cls.__name__)
    assert not missing, f"add to {package}.{registry}: {', '.join(sorted(missing))}"


def test_every_method_is_exported_tested_and_documented() -> None:
    pages = "\n".join(page.read_text() for page in sorted((ROOT / "docs").rglob("*.md")))
    errors = []
    for package, name, cls in registered():
        module = importlib.import_module(package)
        if cls.__name__ not in module.__all__ or vars(module).get(cls.__name__) is not cls:
            errors.append(f"{name}: {cls.__name__} is not exported by {package}")
        file = cls.__module__.rpartition(".")[2]
        test = ROOT / "tests" / package.removeprefix("corank.").replace(".", "/") / f"test_{file}.py"
        if not test.is_file():
            errors.append(f"{name}: {cls.__name__} has no test file {test.relative_to(ROOT)}")
        elif cls.__name__ not in test.read_text():
            errors.append(f"{name}: {test.relative_to(ROOT)} never mentions {cls.__name__}")
        if cls.__name__ not in pages:
            errors.append(f"{name}: no page of docs/ mentions {cls.__name__}")
    assert not errors, "\n".join(errors)
