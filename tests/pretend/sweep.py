"""Every public path on the pretend device: python tests/pretend/sweep.py GROUP [WORD ...]

Prints one JSON object a case: its name, what went wrong (null where nothing did) and its seconds.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from pretend.device import PRETEND, counted  # before corank, which keeps some of torch's functions
from torch import Tensor, nn

import corank  # isort: skip
from corank.codecs import CODECS  # isort: skip
from corank import transfer  # isort: skip
from corank.calibration import Context, Samples, collect  # isort: skip
from corank.coding import place  # isort: skip
from corank.coding.layer import code_layer  # isort: skip
from corank.layers import CodedLayer, prepare  # isort: skip
from corank.models import BinaryViT, BinaryViTShape, resolve  # isort: skip
from corank.presets import PRESETS  # isort: skip
from corank.refine import refine  # isort: skip
from corank.rounding import ROUNDERS  # isort: skip
from corank.statistics import Gram  # isort: skip
from corank.training import callbacks, inputs, loop, penalties, weights  # isort: skip
from corank.storage.model_record import ATTRIBUTE  # isort: skip
from corank.training.recipes import RECIPES, chosen_recipe  # isort: skip
from corank.training.recipes.rate import rate  # isort: skip
from corank.tuning.own_space import own_space  # isort: skip
from corank.verbs import compare  # isort: skip
from corank.verbs.analyse import ANALYSES  # isort: skip
from pretend.networks import IMAGES, KINDS, LABELS, TOKENS, convolutional, data_of, language_model  # isort: skip

Case = Callable[[], None]
BEST = replace(PRESETS["best"], layer=replace(PRESETS["best"].layer, rounder=corank.rounding.AdaRound(4)))
FEW = corank.Refinement(iterations=2, batch_size=8)
FAST = PRESETS["fast"]
LEAN = replace(  # in less time
    FAST,
    layer=replace(FAST.layer, codec=corank.Uniform(range="minmax", half=True), rounds=2),
    edge=replace(FAST.edge, codec=corank.Uniform(8)),
)
COMMON: dict[str, Any] = {"device": PRETEND, "samples": 8, "batch_size": 4, "search": "greedy", "preset": LEAN}
SCRATCH = Path(tempfile.mkdtemp())
transfer._COPIES_AT_ONCE.add("pretend")  # as CUDA


@contextmanager
def coded_on_the_device() -> Iterator[None]:
    """However small a layer is."""
    before = place._COLUMN_BY_COLUMN, place._ALL_AT_ONCE
    place._COLUMN_BY_COLUMN = place._ALL_AT_ONCE = 0
    try:
        yield
    finally:
        place._COLUMN_BY_COLUMN, place._ALL_AT_ONCE = before


def there(model: nn.Module) -> nn.Module:
    """A copy on the device."""
    return copy.deepcopy(model).to(PRETEND)


def devices(model: nn.Module) -> set[torch.device]:
    return {tensor.device for tensor in (*model.parameters(), *model.buffers())}


def outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """On the CPU, wherever the model is."""
    with torch.no_grad():
        found = model(inputs.to(next(model.parameters()).device))
    return (found if isinstance(found, Tensor) else found.logits).cpu().float()


def close(one: Tensor, other: Tensor, tolerance: float = 1e-4) -> None:
    assert bool(torch.isfinite(one).all()), "not finite"
    torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


def quantized(model: nn.Module, data: Any, forced: bool = False, **asked: Any) -> nn.Module:
    """On the device as on the CPU; the result is where the model was, and its file gives the same everywhere."""
    given, probe = there(model), data[:4]
    with coded_on_the_device() if forced else nullcontext():
        small = corank.quantize(given, data, **{**COMMON, **asked})
    assert devices(small) == devices(given) == {PRETEND}, devices(small)
    path = SCRATCH / "small.safetensors"
    corank.save(small, path)
    expected = outputs(small, probe)
    for device in ("cpu", PRETEND):
        loaded = corank.load(path, model, device=device)
        assert devices(loaded) == {torch.device(device)}
        close(outputs(loaded, probe), expected, 1e-6)
    return small


def same_as_on_the_cpu(model: nn.Module, data: Any, forced: bool = False, **asked: Any) -> None:
    small = quantized(model, data, forced, **asked)
    plain = corank.quantize(model, data, **{**COMMON, **asked, "device": "cpu"})
    close(outputs(small, data[:4]), outputs(plain, data[:4]))


def kinds() -> Iterator[tuple[str, Case]]:
    for kind, (make, _) in KINDS.items():
        for forced in (False, True):
            word = "on the device" if forced else "on the CPU"
            yield (
                f"{kind}, coded {word}",
                partial(same_as_on_the_cpu, make(), data_of(kind), forced, bits=3, budget=6.0),
            )
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        model, data = convolutional().to(dtype), IMAGES.to(dtype)
        cora = corank.CoRa(iterations=2, batch_size=4)
        yield f"{dtype}, CoRa", partial(quantized, model, data, bits=3, budget=0.5, search=cora)
        yield (
            f"{dtype}, refined",
            partial(quantized, model, data, preset=BEST, bits=3, budget=0.5, refinement=FEW, activations=4),
        )
        blocks = corank.BlockReconstruction(2, 4)
        yield f"{dtype}, blocks", partial(quantized, model, data, preset="nearest", bits=2, budget=0, refinement=blocks)


def parts() -> Iterator[tuple[str, Case]]:
    make, _ = KINDS["linear"]
    here = partial(same_as_on_the_cpu, make(), data_of("linear"), all_layers=True)
    own = corank.codecs.Levels(2, (-1.0, -0.3, 0.3, 1.0))
    for codec in {**dict.fromkeys(CODECS), "levels": own}.items():
        yield f"codec {codec[0]}", partial(here, forced=True, codec=codec[1] or codec[0], budget=0)
    for name, kind in ROUNDERS.items():
        rounder = kind(iterations=4) if name == "adaround" else kind()
        recipe = replace(LEAN, layer=replace(LEAN.layer, rounder=rounder))
        yield f"rounder {name}", partial(here, forced=True, preset=recipe, bits=3, budget=6.0)
    layer = replace(LEAN.layer, codec=corank.Uniform(range="mse"), refits=2, sparsity=0.3)
    recipe = replace(LEAN, layer=layer, edge=layer)
    yield "refits and sparsity", partial(here, forced=True, preset=recipe, bits=4, budget=0)
    for way in ("mse", "minmax", "kl", "kl-mass"):
        yield f"activations {way}", partial(here, bits=4, activations=4, activation_range=way, budget=0)
    yield "activations, each layer by itself", partial(here, preset="nearest", bits=4, activations=4, budget=0)


def recipes() -> Iterator[tuple[str, Case]]:
    model = convolutional()
    for name, preset in {**PRESETS, "best": BEST}.items():
        for search in ("cora", "greedy", "joint", "uniform"):
            chosen: Any = corank.CoRa(iterations=2, batch_size=4) if search == "cora" else search
            asked = {"preset": preset, "search": chosen, "bits": 3, "budget": 0.5, "refinement": FEW}
            yield f"{name}, {search}", partial(quantized, model, IMAGES, **asked)
    joint = corank.Joint(sensitivity="measured", then=corank.CoRa(iterations=2, batch_size=4))
    yield "joint, measured, then CoRa", partial(quantized, model, IMAGES, bits=3, budget=0.5, search=joint)
    rated = {"rate": 2.0, "search": None, "preset": "fast"}
    yield "rate", partial(same_as_on_the_cpu, model, IMAGES, **rated)
    yield "rate, coded on the device", partial(quantized, model, IMAGES, True, **rated)
    yield "rate with adapters", partial(quantized, model, IMAGES, budget=0.5, **rated)
    yield "rate for a size", partial(quantized, model, IMAGES, rate="auto", size="6KB", search=None, preset="fast")
    yield "bits for a size", partial(quantized, model, IMAGES, size="6KB")
    moved = corank.Refinement(iterations=2, batch_size=8, code_rate=0.01, features=0.5, drop=0.5, augment=True)
    yield (
        "all that trains",
        partial(quantized, model, IMAGES, preset=BEST, bits=3, budget=0.5, activations=4, refinement=moved),
    )
    dropping = corank.BlockReconstruction(2, 4, drop=0.5)
    yield "blocks", partial(quantized, model, IMAGES, bits=2, budget=0, activations=4, refinement=dropping)
    own = {"loss": lambda output, wanted: (output - wanted).square().mean()}
    yield "a loss of one's own", partial(quantized, model, IMAGES, bits=3, budget=0.5, **own)
    yield "layers left out", partial(quantized, model, IMAGES, bits=3, budget=0, layers={"3": "float", "0": 8})
    yield "from the CPU and back", from_the_cpu
    yield "on the CPU, from the device", from_the_device
    yield "data on the device", lambda: quantized(model, IMAGES.to(PRETEND).cpu(), bits=3, budget=0) and None
    yield "batches on the device", batches_on_the_device
    yield "under autocast", under_autocast


def from_the_cpu() -> None:
    small = corank.quantize(convolutional(), IMAGES, bits=3, budget=0.5, refinement=FEW, **{**COMMON, "preset": BEST})
    assert devices(small) == {torch.device("cpu")}
    outputs(small, IMAGES)


def from_the_device() -> None:
    given = there(convolutional())
    small = corank.quantize(given, IMAGES.to(PRETEND), bits=3, budget=0.5, **{**COMMON, "device": "cpu"})
    assert devices(small) == {PRETEND}
    outputs(small, IMAGES)


def batches_on_the_device() -> None:
    batches = [(IMAGES[:6].to(PRETEND), LABELS[:6].to(PRETEND)), (IMAGES[6:].to(PRETEND), LABELS[6:].to(PRETEND))]
    corank.quantize(there(convolutional()), batches, bits=3, budget=0, **COMMON)


def under_autocast() -> None:
    with torch.autocast("cpu", enabled=False):
        quantized(convolutional(), IMAGES, bits=3, budget=0)


def verbs() -> Iterator[tuple[str, Case]]:
    yield "evaluate", evaluated
    yield "evaluate a model that is elsewhere", evaluated_elsewhere
    yield "compare", compared
    yield "compare a model that is elsewhere", compared_elsewhere
    for what in ANALYSES:
        yield f"analyse {what}", partial(analysed, what)
    yield "smallest", smallest
    yield "tune", tuned
    yield "checkpoint", resumed
    yield "prune", pruned
    yield "fewer channels or fewer bits", narrowed
    for coder in ("fixed", "deflate", "sham", "ham", "ans", "rans"):
        yield f"coder {coder}", partial(saved, coder)
    yield "moved, cast, copied", moved
    yield "inspect and diff", inspected
    yield "norms estimated anew", norms
    yield "hub", hub
    yield "supernet", supernet
    yield "adapt", adapted
    yield "language model", partial(spoken, bits=4, budget=0.5)
    yield "language model, masked", masked
    yield "language model, refined", partial(spoken, bits=3, preset=BEST, refinement=FEW)
    yield "language model in bfloat16", partial(spoken, torch.bfloat16, bits=4, budget=0.5)


def supernet() -> None:
    torch.manual_seed(0)
    net = resolve("elastic:10,width=4-4-8,depth=1+2,kernel=3+5,expansion=1+2,resolution=8+10").model
    floating = corank.train_supernet(there(net), (IMAGES, LABELS), None, iterations=2, batch_size=8, device=PRETEND)
    four = corank.train_supernet(floating, (IMAGES, LABELS), 4, iterations=2, batch_size=8, device=PRETEND)
    three = corank.train_supernet(four, (IMAGES, LABELS), 3, iterations=1, batch_size=8, device=PRETEND)
    found = corank.search_subnets([four, three], IMAGES, [(IMAGES, LABELS)], trials=3)
    small = corank.extract_subnet(four, IMAGES, found.trials[0].chosen)
    assert devices(four) == devices(three) == devices(small) == {PRETEND}, [
        devices(one) for one in (four, three, small)
    ]
    corank.save_supernet(three, SCRATCH / "supernet.safetensors")
    assert devices(corank.load_supernet(SCRATCH / "supernet.safetensors")) == {torch.device("cpu")}


def adapted() -> None:
    base, asked = small_model(), {"iterations": 2, "batch_size": 8}
    here = corank.adapt(base, (IMAGES, LABELS % 2), 1, classes=2, device="cpu", **asked)
    found = corank.adapt(base, (IMAGES, LABELS % 2), 1, classes=2, device=PRETEND, **asked)
    assert devices(found) == devices(here) == devices(base) == {PRETEND}, devices(found)
    close(outputs(found, IMAGES), outputs(here, IMAGES), 1e-2)  # a factor's code may turn
    corank.save_adapter(found, SCRATCH / "task.safetensors")
    close(outputs(corank.load_adapter(base, SCRATCH / "task.safetensors"), IMAGES), outputs(found, IMAGES), 1e-6)


def small_model(**asked: Any) -> nn.Module:
    """Coded, on the device."""
    return corank.quantize(there(convolutional()), IMAGES, **{**COMMON, "bits": 3, "budget": 0.5, **asked})


def pruned() -> None:
    for method in ("perspective", "first-order"):
        asked: dict[str, Any] = {"method": method, "iterations": 2, "drawn": 0.5, "batch_size": 8, "seed": 1}
        given, here = there(convolutional()), corank.prune(convolutional(), IMAGES, 0.3, **asked)
        small = corank.prune(given, IMAGES, 0.3, device=PRETEND, **asked)
        assert devices(small) == devices(given) == {PRETEND}, devices(small)
        assert small.corank_pruned.channels == here.corank_pruned.channels
        close(outputs(small, IMAGES), outputs(here, IMAGES))
        path = SCRATCH / "pruned.safetensors"
        corank.save(small, path)
        close(outputs(corank.load(path, convolutional(), device=PRETEND), IMAGES), outputs(small, IMAGES), 1e-6)


def narrowed() -> None:
    asked: dict[str, Any] = {"size": 3000, "preset": "nearest", "prune": corank.Narrowing(("0.3p",), iterations=2)}
    given = there(convolutional())
    small = corank.quantize(given, IMAGES, device=PRETEND, **asked)
    here = corank.quantize(convolutional(), IMAGES, **asked)
    assert devices(small) == devices(given) == {PRETEND}, devices(small)
    for one, other in zip(small.corank_run.candidates, here.corank_run.candidates, strict=True):
        assert one["parameters"] == other["parameters"] and abs(one["distance"] - other["distance"]) < 1e-4


def evaluated() -> None:
    small, model = small_model(), convolutional()
    here = corank.evaluate(copy.deepcopy(small).cpu(), [(IMAGES, LABELS)], model)
    for batch in ((IMAGES, LABELS), (IMAGES.to(PRETEND), LABELS.to(PRETEND)), (IMAGES, LABELS.to(PRETEND))):
        found = corank.evaluate(small, [batch], there(model))
        assert found.top1 == here.top1 and abs((found.kl or 0) - (here.kl or 0)) < 1e-5


def evaluated_elsewhere() -> None:
    model, small = convolutional(), small_model()
    here = corank.evaluate(model, [(IMAGES, LABELS)])
    assert corank.evaluate(model, [(IMAGES, LABELS)], device=PRETEND) == here
    assert devices(model) == {torch.device("cpu")}
    found = corank.evaluate(small, [(IMAGES, LABELS)], model)
    assert found.kl is not None and devices(model) == {torch.device("cpu")}


def compared() -> None:
    compared_on(there(convolutional()))


def compared_elsewhere() -> None:
    compared_on(convolutional())


def tuned() -> None:
    space = own_space(sized=False).restricted("codes", ["rate"]).restricted("distilled", ["false"])
    found = corank.tune(there(convolutional()), IMAGES, space=space, trials=1, selection=3, rungs=(1.0,), samples=6)
    assert found.file is not None and found.final is not None and found.best.state == "complete", found.best.reason


def compared_on(model: nn.Module) -> None:
    wanted = compare.cases(codecs=["uniform"], bits=[3])[:2]
    found = corank.compare(model, IMAGES, [(IMAGES, LABELS)], wanted, samples=8, device=PRETEND)
    assert len(found.results) == len(wanted) and "failed" not in str(found.results)


def analysed(what: str) -> None:
    small, model = small_model(), convolutional()
    found = corank.analyse(there(model), (IMAGES, LABELS), what, quantized=small, samples=8, device=PRETEND)
    here = corank.analyse(model, (IMAGES, LABELS), what, quantized=small, samples=8, device="cpu")
    assert devices(small) == {PRETEND} and devices(model) == {torch.device("cpu")}
    assert [one["name"] for one in found["layers"]] == [one["name"] for one in here["layers"]]


def smallest() -> None:
    found = corank.quantize_smallest(there(convolutional()), IMAGES, 50.0, [(IMAGES, LABELS)], **COMMON)
    assert devices(found.model) == {PRETEND}


def resumed() -> None:
    how = corank.Refinement(iterations=30, batch_size=8)
    asked: dict[str, Any] = {"preset": BEST, "refinement": how, "activations": 4}
    whole, stopped = small_model(**asked), []

    def stop(what: str, done: int, _total: int) -> None:
        if what == "refining" and done == 27:
            stopped.append(done)
            raise KeyboardInterrupt

    folder = Path(tempfile.mkdtemp())
    try:
        small_model(**asked, checkpoint=folder, progress=stop)
    except KeyboardInterrupt:
        assert stopped
    close(outputs(small_model(**asked, checkpoint=folder), IMAGES), outputs(whole, IMAGES), 0.0)


def saved(coder: str) -> None:
    small, path = small_model(rate=2.0, bits=None, search=None, budget=None), SCRATCH / "coded.safetensors"
    corank.save(small, path, coder=coder)
    close(outputs(corank.load(path, convolutional(), device=PRETEND), IMAGES), outputs(small, IMAGES), 0.0)


def moved() -> None:
    small = small_model(activations=4)
    expected = outputs(small, IMAGES)
    close(outputs(copy.deepcopy(small).cpu(), IMAGES), expected)
    close(outputs(copy.deepcopy(small).cpu().to(PRETEND), IMAGES), expected)
    close(outputs(copy.deepcopy(small).half().float(), IMAGES), expected, 5e-2)
    plain = corank.to_float(small)
    assert devices(plain) == {PRETEND}
    outputs(plain, IMAGES)
    state = {name: tensor.cpu() for name, tensor in small.state_dict().items()}
    small.load_state_dict(state)
    close(outputs(small, IMAGES), expected, 0.0)
    loss = small(IMAGES.to(PRETEND)).square().mean()
    assert loss.device == PRETEND


def inspected() -> None:
    small = small_model()
    here = json.dumps(corank.inspect(copy.deepcopy(small).cpu(), codes=True), sort_keys=True)
    assert json.dumps(corank.inspect(small, codes=True), sort_keys=True) == here
    other = small_model(bits=2)
    corank.diff(small, other)
    paths = SCRATCH / "one.safetensors", SCRATCH / "other.safetensors"
    for path, model in zip(paths, (small, other), strict=True):
        corank.save(model, path)
    corank.diff(*paths)


def norms() -> None:
    from corank.refine import reestimate_norms

    reestimate_norms(small_model(fold=False), IMAGES)


def hub() -> None:
    small, folder = small_model(), Path(tempfile.mkdtemp())
    corank.save_pretrained(small, folder)
    again = corank.from_pretrained(str(folder), convolutional(), device=PRETEND)
    close(outputs(again, IMAGES), outputs(small, IMAGES), 0.0)


def spoken(dtype: torch.dtype = torch.float32, **asked: Any) -> None:
    model = language_model().to(dtype)
    small = corank.quantize(there(model), TOKENS, **{**COMMON, **asked})
    found = corank.evaluate(small, TOKENS, there(model))
    assert found.nats is not None and found.kl is not None and devices(small) == {PRETEND}
    path = SCRATCH / "language.safetensors"
    corank.save(small, path)
    close(outputs(corank.load(path, there(model), device=PRETEND), TOKENS), outputs(small, TOKENS), 1e-6)


def masked() -> None:
    batches = [{"input_ids": TOKENS, "attention_mask": (torch.arange(16) >= 3).long().expand(6, 16)}]
    corank.quantize(there(language_model()), batches, rate=2.0, **{**COMMON, "search": None, "preset": "fast"})


WIDTHS = {
    "dense-shift": "3bit",
    "s3": "3bit",
    "binary": "w1a1",
    "binary-vit": "w1a1",
    "power-of-two": "w3a4",
    "random-bias": "1bit",
}


def trainings() -> Iterator[tuple[str, Case]]:
    """Every recipe, which together have all ways of training weights and inputs, all penalties and callbacks."""
    for name in RECIPES:
        whole = {"compander": "compander", "gradient-l1": "gradient-l1"}
        widths = ("2bit", "1bit") if name in ("bitat", "binary-relax", "cga", "ternary") else ("w2a4", "w1a4")
        chosen = whole.get(name) or first_of(
            f"{name}-{width}" for width in (WIDTHS.get(name), *widths, "w3a3") if width
        )
        if name == "ofq":  # of attention alone
            yield (
                f"recipe {chosen}",
                partial(trained, chosen, vision_transformer(), (torch.nn.functional.pad(IMAGES, (1, 1, 1, 1)), LABELS)),
            )
        else:
            yield f"recipe {chosen}", partial(trained, chosen)
    yield "to a rate", partial(trained, None, rate=1.5)
    yield "to a size", partial(trained, None, size="2500")
    for way in ("channel-weighted", "learned-clip", "learned-step", "resolution"):
        recipe = corank.Recipe(inputs=inputs.INPUTS[way](4), edge_inputs=inputs.LearnedStepInputs(8))
        yield f"inputs {way}", partial(trained, recipe)
    for codec in CODECS:
        yield f"straight through {codec}", partial(trained, straight(codec))
    every = (
        *(callbacks.Meters(1), callbacks.Blend(0.1), callbacks.Confidence(0.1, 0.0), callbacks.LayerByLayer(0.5)),
        callbacks.OperatorNorms(2),
    )
    for number, callback in enumerate(every):
        yield f"callback {number}", partial(trained, corank.Recipe(callbacks=(callback,), average=0.5))
    both = (penalties.GradientL1(), penalties.Importance(every=2))
    yield "penalties", partial(trained, corank.Recipe(penalties=both, loss="both"))
    yield "norms frozen, in parts", partial(trained, corank.Recipe(norms="frozen", augment="none"), parts=3)
    yield "labels", partial(trained, corank.Recipe(loss="labels", start="float"))
    yield "taught by another", partial(trained, "lsq-w4a4", teacher=convolutional())
    yield "signs that are counted", counted_signs
    yield "codes that stay packed", packed_codes
    yield "language model", language_model_trained
    yield "killed", training_resumed


def vision_transformer() -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=24, depth=1, num_heads=3, num_classes=5).eval()


def first_of(names: Iterator[str]) -> str:
    """The first name that is a recipe's."""
    for name in names:
        with suppress(corank.ConfigError):
            chosen_recipe(name)
            return name
    raise AssertionError("none of them is")


def of_normal_numbers(callback: Any) -> Any:
    """Told that pixels from 0 to 1 became numbers from -8 to 8, where that is what it has to know."""
    scaled = {"mean": (0.5,) * 3, "std": (1 / 16,) * 3}
    return replace(callback, **scaled) if isinstance(callback, callbacks.Adversarial) else callback


def straight(codec: str) -> corank.Recipe:
    made: Any = CODECS[codec]
    return corank.Recipe(weights=weights.StraightThrough(made()))


def trained(recipe: Any, model: nn.Module | None = None, data: Any = None, **asked: Any) -> None:
    """On the device as on the CPU, but for draws of its own; the file gives the same everywhere."""
    model, data = model or convolutional(), (IMAGES, LABELS) if data is None else data
    recipe = (rate(1.5) if recipe is None else chosen_recipe(recipe)).replaced(precision="float32")
    recipe = recipe.replaced(callbacks=tuple(map(of_normal_numbers, recipe.callbacks)))
    asked = {"iterations": 2, "batch_size": 6, "samples": 8, **asked}
    given = there(model)
    small = corank.train(given, data, recipe, device=PRETEND, **asked)
    assert devices(small) == devices(given) == {PRETEND}, devices(small)
    probe = data[0] if isinstance(data, tuple) else data
    plain = outputs(corank.train(model, data, recipe, device="cpu", **asked), probe)
    close(outputs(small, probe), plain, 1e-3)
    if ATTRIBUTE in small.__dict__:
        path = SCRATCH / "trained.safetensors"
        corank.save(small, path)
        close(outputs(corank.load(path, model, device=PRETEND), probe), outputs(small, probe), 1e-6)


def counted_signs() -> None:
    model = BinaryViT(4, BinaryViTShape(8, 2, 8, (1, 1), (2, 2), (2, 1)))
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(4))
    data = (images, LABELS % 4)
    small = corank.train(there(model), data, "binary-vit-w1a1", iterations=1, batch_size=6, samples=8, device=PRETEND)
    packed = corank.to_packed(small)
    assert devices(packed) == {PRETEND}, devices(packed)
    close(outputs(packed, images), outputs(small, images), 1e-3)
    close(outputs(packed.cpu(), images), outputs(small, images), 1e-3)


def packed_codes() -> None:
    small = corank.quantize(there(language_model()), TOKENS, bits=4, preset="nearest", budget=0, device=PRETEND)
    packed = corank.to_packed(small)
    assert devices(packed) == {PRETEND}, devices(packed)
    close(outputs(packed, TOKENS), outputs(small, TOKENS), 1e-3)
    close(outputs(packed.cpu(), TOKENS), outputs(small, TOKENS), 1e-3)


def language_model_trained() -> None:
    """Its codes at the start are already others than on the CPU: attention sums in another order there."""
    model = there(language_model())
    small = corank.train(model, TOKENS, "lsq-w4a4", iterations=3, batch_size=6, samples=8, device=PRETEND)
    found = corank.evaluate(small, TOKENS, model)
    assert devices(small) == {PRETEND} and found.kl is not None and found.kl < 1


def training_resumed() -> None:
    folder = Path(tempfile.mkdtemp())

    def stop(what: str, done: int, _total: int) -> None:
        if what.startswith("training") and done == 4:
            raise KeyboardInterrupt

    asked: dict[str, Any] = {"iterations": 5, "batch_size": 6, "samples": 8, "device": PRETEND}
    before, loop._KEPT_EVERY = loop._KEPT_EVERY, 2
    try:
        with suppress(KeyboardInterrupt):
            corank.train(there(convolutional()), IMAGES, "cga-w2a4", progress=stop, checkpoint=folder, **asked)
        small = corank.train(there(convolutional()), IMAGES, "cga-w2a4", checkpoint=folder, **asked)
    finally:
        loop._KEPT_EVERY = before
    whole = corank.train(there(convolutional()), IMAGES, "cga-w2a4", **asked)
    close(outputs(small, IMAGES), outputs(whole, IMAGES), 0.0)


def exports() -> Iterator[tuple[str, Case]]:
    yield "ONNX", onnx
    yield "int8", int8
    yield "OpenVINO", openvino
    yield "PEFT", peft
    yield "torch.export", exported


def onnx() -> None:
    from corank.export import export_onnx

    export_onnx(small_model(activations=8), SCRATCH / "small.onnx", IMAGES[:2].to(PRETEND))


def int8() -> None:
    from corank.export import export_onnx_int8

    export_onnx_int8(small_model(activations=8, bits=4), SCRATCH / "int8.onnx", IMAGES, tolerance=50.0)


def openvino() -> None:
    from corank.export import export_openvino

    export_openvino(small_model(bits=4), SCRATCH / "small.xml", IMAGES[:2])


def peft() -> None:
    from corank.export import export_peft

    model = language_model()
    small = corank.quantize(there(model), TOKENS, **{**COMMON, "bits": 4, "budget": 0.5})
    export_peft(small, SCRATCH / "peft", {"input_ids": TOKENS})


def exported() -> None:
    small = small_model(activations=4).cpu()
    torch.export.export(small, (IMAGES[:2],))


def device() -> Iterator[tuple[str, Case]]:
    yield "what mixes devices is seen", mixtures_are_seen
    yield "waits are counted", waits_are_counted
    yield "a small layer is moved once and back", small_layers_are_moved
    yield "a large layer is walked without waiting", large_layers_are_walked
    yield "passes do not wait for the device", passes_do_not_wait
    yield "steps of a refinement wait seldom", steps_wait_seldom


def mixtures_are_seen() -> None:
    there, here = torch.ones(4, device=PRETEND), torch.ones(4)
    generator = torch.Generator()
    mixing: tuple[Callable[[], object], ...] = (
        lambda: there + here,
        lambda: here.add_(there),
        lambda: torch.cat([there, here]),
        lambda: nn.functional.linear(there, here[None]),
        lambda: there.numpy(),
        lambda: here[torch.arange(2, device=PRETEND)],
        lambda: torch.rand(3, generator=generator, device=PRETEND),
    )
    for number, mix in enumerate(mixing):
        try:
            mix()
        except (RuntimeError, TypeError):
            continue
        raise AssertionError(f"mixture {number} was not seen")
    found = (there * torch.tensor(2.0))[torch.arange(2)]
    assert found.device == PRETEND and found.cpu().tolist() == [2.0, 2.0]
    layer = nn.Linear(4, 2).to(PRETEND)
    layer(there).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.device == PRETEND


def waits_are_counted() -> None:
    there = torch.ones(4, device=PRETEND)
    with counted() as found:
        there.mul(2).add_(1)
        torch.ones(4).to(PRETEND, non_blocking=True)
    assert found.waits == 0 and found.started >= 3
    for wait in (lambda: float(there.sum()), lambda: there.cpu(), lambda: torch.ones(4).to(PRETEND), there.nonzero):
        with counted() as found:
            wait()
        assert found.waits == 1, found


def layer_of(rows: int, columns: int) -> tuple[Tensor, corank.LayerPlan, dict[Any, Any]]:
    """Weight, plan and statistics on the device."""
    gram = Gram(1, columns, PRETEND)
    gram.update(torch.randn(1, 2 * columns, columns).to(PRETEND), 1)
    layer = replace(FAST.layer, codec=corank.codecs.RateUniform.of(2.0), fit="output")
    return torch.randn(1, rows, columns).to(PRETEND), layer, {Gram: gram}


def small_layers_are_moved() -> None:
    for columns in (24, 96):
        weight, layer, statistics = layer_of(16, columns)
        with counted() as found:
            code_layer(weight, None, layer, statistics)
        assert found.started < 40 and found.waits < 20, found
        with counted() as again:
            code_layer(weight, None, layer, statistics)
        assert again.waits < found.waits  # the moments are there already


def large_layers_are_walked() -> None:
    waits = []
    for columns in (24, 96):
        weight, layer, statistics = layer_of(16, columns)
        book = layer.codec.fit(weight[0]) if layer.codec else None
        assert book is not None
        with counted() as found:
            layer.rounder(weight[0], book, statistics)
        waits.append(found.waits)
    assert max(waits) < 12, waits


def passes_do_not_wait() -> None:
    model = there(convolutional())
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    waits = []
    for batches in (2, 6):
        with counted() as found:
            collect(model, layers, Samples.of(IMAGES, 12, 12 // batches))
        waits.append(found.waits)
    assert waits[0] == waits[1] <= 5 * len(layers), waits  # only what looks at a layer's first rows waits


def steps_wait_seldom() -> None:
    small = small_model(activations=4)
    waits = []
    for steps in (1, 5):
        student = copy.deepcopy(small)
        context = Context(prepared_of(convolutional()), Samples.of(IMAGES, 12, 4))
        how = replace(FEW, iterations=steps, augment=False)
        with counted() as found:
            refine(student, context.model, how, context)
        waits.append(found.waits)
    layers = sum(isinstance(module, CodedLayer) for module in small.modules())
    assert (waits[1] - waits[0]) / 4 <= 4 + 4 * layers, waits


def prepared_of(model: nn.Module) -> Any:
    """Norms folded, on the device."""
    prepared = prepare(model, lambda one: one(IMAGES[:2]))
    prepared.model.to(PRETEND)
    return prepared


GROUPS: Mapping[str, Callable[[], Iterator[tuple[str, Case]]]] = {
    "device": device, "kinds": kinds, "parts": parts, "recipes": recipes, "verbs": verbs, "trainings": trainings,
    "exports": exports,
}  # fmt: skip


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    group, *words = sys.argv[1:]
    for name, case in GROUPS[group]():
        if words and not any(word in name for word in words):
            continue
        started, wrong = time.perf_counter(), None
        try:
            case()
        except Exception as error:
            places = [
                f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in traceback.extract_tb(error.__traceback__)
            ]
            wrong = f"{type(error).__name__}: {error} ({' '.join(places[-6:])})"
        print(
            json.dumps({"case": name, "wrong": wrong, "seconds": round(time.perf_counter() - started, 2)}), flush=True
        )
    sys.stdout.flush()
    os._exit(0)  # torch's threads for the device's backward passes would abort an ordinary exit


if __name__ == "__main__":
    main()
