from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from corank.data import Preprocessing
from corank.errors import ModelError
from corank.models.from_python_file import load_python_file
from corank.models.loader import Request
from corank.models.resolve import resolve


def test_a_factory_is_called(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("from torch import nn\ndef net():\n    return nn.Flatten()\n")
    assert isinstance(load_python_file(Request(f"{tmp_path}/a.py:net")).model, nn.Flatten)


@pytest.mark.parametrize(
    ("body", "said"),
    [("return 3", "returned int"), ("raise KeyError('stem')", r"\(line 2\): KeyError: 'stem'")],
)
def test_a_factory_that_fails(tmp_path: Path, body: str, said: str) -> None:
    (tmp_path / "a.py").write_text(f"def net():\n    {body}\n")
    with pytest.raises(ModelError, match=said):
        load_python_file(Request(f"{tmp_path}/a.py:net"))


def test_a_name_without_a_factory() -> None:
    with pytest.raises(ModelError, match=r"file\.py:factory"):
        load_python_file(Request("a.py"))


SAID = "{'mean': (0.1, 0.2, 0.3), 'std': (0.5, 0.6, 0.7), 'size': 32}"
COLOUR = Preprocessing(32, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"def net():\n    return nn.Linear(3, 2), {SAID}\n", COLOUR),
        (f"def net():\n    return nn.Linear(3, 2)\nnet.preprocessing = {SAID}\n", COLOUR),
        (f"def net():\n    m = nn.Linear(3, 2)\n    m.preprocessing = {SAID}\n    return m\n", COLOUR),
        (f"class net(nn.Flatten):\n    preprocessing = {SAID}\n", COLOUR),
        ("def net():\n    return nn.Linear(3, 2), Preprocessing(16, channels=1)\n", Preprocessing(16, channels=1)),
        (
            "def net():\n    return nn.Linear(3, 2), {'mean': [0.5], 'std': [0.25]}\n",
            Preprocessing(None, (0.5,), (0.25,), channels=1),
        ),
        ("def net():\n    return nn.Linear(3, 2), {'channels': 1}\n", Preprocessing(channels=1)),
    ],
)
def test_a_factory_says_how_images_are_read(tmp_path: Path, text: str, expected: Preprocessing) -> None:
    (tmp_path / "a.py").write_text(f"from torch import nn\nfrom corank.data import Preprocessing\n{text}")
    found = load_python_file(Request(f"{tmp_path}/a.py:net"))
    assert found.preprocessing == expected and found.states_preprocessing


def test_a_factory_that_says_nothing(tmp_path: Path) -> None:
    text = "from torch import nn\nclass net(nn.Flatten):\n    def preprocessing(self): ...\n"
    (tmp_path / "a.py").write_text(text)
    found = load_python_file(Request(f"{tmp_path}/a.py:net"))
    assert found.preprocessing == Preprocessing() and not found.states_preprocessing


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{'average': 3}", "says average of its images; of mean, std, size"),
        ("{'mean': 'x'}", "cannot be"),
        ("{'mean': (0.5, 0.5)}", "cannot be"),
        ("{'std': (0.0, 1.0, 1.0)}", "above 0"),
        ("3", "returned a int beside the module"),
    ],
)
def test_what_a_factory_cannot_say(tmp_path: Path, said: str, why: str) -> None:
    (tmp_path / "a.py").write_text(f"from torch import nn\ndef net():\n    return nn.Linear(3, 2), {said}\n")
    with pytest.raises(ModelError, match=why):
        load_python_file(Request(f"{tmp_path}/a.py:net"))


MODELS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
        self.gate = nn.Parameter(torch.zeros(2, 2))

def fresh():
    return Net()

def loaded():
    model = Net()
    model.load_state_dict({name: torch.arange(value.numel()).reshape(value.shape).to(value)
                           for name, value in model.state_dict().items()})
    return model

def new_head():
    model = loaded()
    model.head = nn.Linear(4, 5)
    return model

def seeded():
    torch.manual_seed(7)
    return Net()

ONCE = []
def once():
    if ONCE:
        raise RuntimeError("only once")
    ONCE.append(1)
    return Net()
"""


@pytest.mark.parametrize(
    ("name", "random", "fresh"),
    [
        ("fresh", True, ()),
        ("loaded", False, ()),
        ("new_head", True, ("head.weight",)),
        ("seeded", False, ()),  # may be trained as well as fresh: nothing proves that it is random
        ("once", False, ()),
    ],
)
def test_random_weights_are_proved(tmp_path: Path, name: str, random: bool, fresh: tuple[str, ...]) -> None:
    (tmp_path / "a.py").write_text(MODELS)
    found = resolve(f"{tmp_path}/a.py:{name}")
    assert (found.random, found.fresh) == (random, fresh)
    assert found.weights == (None if random and not fresh else f"{tmp_path}/a.py:{name}")
    assert not resolve(f"{tmp_path}/a.py:{name}", pretrained=True).random


def test_a_second_call_moves_no_random_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(MODELS)
    first, known = (resolve(f"{tmp_path}/a.py:fresh", pretrained=trained).model for trained in (False, True))
    assert all(value.equal(known.state_dict()[name]) for name, value in first.state_dict().items())
