"""Published ways of training: one paper, one file. A recipe's name is the method's and its bits, "bcgd-w1a4"."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from corank.errors import ConfigError
from corank.training.recipe import Recipe
from corank.training.recipes.adamp import adamp
from corank.training.recipes.apot import apot
from corank.training.recipes.bcgd import bcgd
from corank.training.recipes.binary import binary
from corank.training.recipes.binary_relax import binary_relax
from corank.training.recipes.binary_vit import binary_vit
from corank.training.recipes.bitat import bitat
from corank.training.recipes.cga import cga
from corank.training.recipes.compander import compander
from corank.training.recipes.dense_shift import dense_shift
from corank.training.recipes.direct import direct
from corank.training.recipes.dorefa import dorefa
from corank.training.recipes.gradient_l1 import gradient_l1
from corank.training.recipes.incremental import incremental
from corank.training.recipes.lsq import lsq
from corank.training.recipes.ofq import ofq
from corank.training.recipes.pact import pact
from corank.training.recipes.parq import parq
from corank.training.recipes.power_of_two import power_of_two
from corank.training.recipes.random_bias import random_bias
from corank.training.recipes.refine import refine
from corank.training.recipes.robust import robust
from corank.training.recipes.roq import roq
from corank.training.recipes.s3 import s3
from corank.training.recipes.shift_speech import shift_speech, shift_speech_s3
from corank.training.recipes.stats import stats
from corank.training.recipes.ternary import ternary

__all__ = ["RECIPES", "chosen_recipe"]

RECIPES: dict[str, Callable[[int, int | None], Recipe]] = {
    "adamp": adamp,
    "apot": apot,
    "bcgd": bcgd,
    "binary": binary,
    "binary-relax": binary_relax,
    "binary-vit": binary_vit,
    "bitat": bitat,
    "cga": cga,
    "compander": compander,
    "dense-shift": dense_shift,
    "direct": direct,
    "dorefa": dorefa,
    "gradient-l1": gradient_l1,
    "lsq": lsq,
    "ofq": ofq,
    "pact": pact,
    "parq": parq,
    "power-of-two": power_of_two,
    "random-bias": random_bias,
    "refine": refine,
    "robust": robust,
    "roq": roq,
    "s3": s3,
    "shift-speech": shift_speech,
    "shift-speech-s3": shift_speech_s3,
    "stats": stats,
    "ternary": ternary,
    "weight-aligning": incremental,
}
"""Methods by name; each takes the bits of weights and of inputs, None for float inputs."""

_FLOAT = ("compander", "gradient-l1", "robust", "weight-aligning")  # that by their name alone end in a float network
_NAME = re.compile(r"([a-z][a-z0-9]*(?:-[a-z0-9]+)*?)-(?:(\d)bit|w(\d)a(\d))")
_ROUGHLY = re.compile(r"(.+?)[-_ ]?(?:(\d+)[-_ ]?bits?|w?(\d+)[-_ ]?a(\d+))?")  # of a name that is none, what was meant


def chosen_recipe(recipe: str | Recipe) -> Recipe:
    """The recipe, or the one of that name: a method and its bits, "stats-2bit" or "lsq-w4a4"; a method that trains a
    float network goes by its name alone.

    Raises:
        ConfigError: for a name that is not known, naming the closest, or bits that the method does not have.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if not isinstance(recipe, str):
        raise ConfigError(f"recipe={recipe!r:.60}: a name such as 'stats-2bit', or a corank.Recipe")
    if recipe in _FLOAT:
        return RECIPES[recipe](32, None)
    found = _NAME.fullmatch(recipe)
    if found is None and recipe in RECIPES:
        raise ConfigError(f"recipe {recipe!r} needs its bits: {recipe}-2bit, or {recipe}-w4a4 with inputs of 4 bits")
    if found is None or found[1] not in RECIPES:
        raise ConfigError(f"no recipe is called {recipe!r:.60}; {_nearest(recipe)}")
    name, bits, weights, inputs = found.groups()
    return RECIPES[name](int(bits or weights), None if inputs is None else int(inputs))


def _nearest(recipe: str) -> str:
    """What a name that is none may have meant, and what there is."""
    found = _ROUGHLY.fullmatch(recipe[:60].lower())
    method, bits, weights, inputs = found.groups() if found else (recipe[:60], None, None, None)
    close = difflib.get_close_matches(method.replace("_", "-"), RECIPES, n=1)
    width = f"w{weights[:1]}a{inputs[:1]}" if weights and inputs else f"{min(8, int(bits or 2))}bit"
    meant = "" if not close else close[0] if close[0] in _FLOAT else f"{close[0]}-{width}"
    hint = f"did you mean {meant!r}? " if meant else ""
    return f"{hint}a name is METHOD-Nbit or METHOD-wNaM, e.g. 'stats-2bit' or 'lsq-w4a4', of {', '.join(RECIPES)}"
