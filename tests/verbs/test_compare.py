"""Comparing codecs: every case once, kept as soon as it is there, and the numbers those of the cases by themselves."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.errors import ConfigError
from corank.verbs.compare import Case, cases, codec_of, compare


@pytest.fixture(scope="module")
def task() -> tuple[nn.Module, Tensor, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    images = torch.randn(64, 8)
    with torch.no_grad():
        return model, images, [(images, model(images).argmax(1))]


def test_cases_are_the_widths_that_codecs_have() -> None:
    found = cases(["uniform"], ["nearest"], [3, 2], [0.0, 0.5])
    assert [one.label for one in found] == [
        "uniform nearest 3",
        "uniform nearest 3+0.5",
        "uniform nearest 2",
        "uniform nearest 2+0.5",
    ]
    assert all(codec_of(one.codec, one.bits) is not None for one in cases())


@pytest.mark.parametrize("wrong", [{"codecs": ["unifrom"]}, {"rounders": ["gtpq"]}, {"codecs": [], "bits": [2]}])
def test_unknown_names(wrong: dict) -> None:
    with pytest.raises(ConfigError):
        cases(**wrong)


def test_a_result_is_that_of_the_case_by_itself(task, tmp_path: Path) -> None:
    model, images, scored = task
    found = compare(model, images, scored, [Case("uniform", "nearest", 3), Case("uniform", "gptq", 2, 0.5)])
    assert found.float_scores == {"samples": 64, "top1": 100.0}
    small = corank.quantize(model, images, bits=3, budget=0, preset="nearest", layers={"2": codec_of("uniform", 3)})
    one = found.results["uniform nearest 3"]
    assert one["stored_bytes"] == pytest.approx(corank.save(small, tmp_path / "small.safetensors"), rel=0.05)
    assert one["top1"] == corank.evaluate(small, scored).top1
    assert found.results["uniform gptq 2+0.5"]["equivalent_bits"] > one["equivalent_bits"] - 1


def test_what_is_there_is_not_run_again(task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, scored = task
    out = tmp_path / "compare.json"
    wanted = [Case("uniform", "nearest", bits) for bits in (4, 3)]
    first = compare(model, images, scored, wanted[:1], out=out)
    ran = []
    module = importlib.import_module("corank.verbs.compare")
    real = module.quantize
    monkeypatch.setattr(module, "quantize", lambda *a, **k: ran.append(k["bits"]) or real(*a, **k))
    both = compare(model, images, scored, wanted, out=out)
    assert ran == [3]
    assert both.results["uniform nearest 4"] == first.results["uniform nearest 4"]
    assert set(json.loads(out.read_text())["results"]) == {"uniform nearest 4", "uniform nearest 3"}
    with pytest.raises(ConfigError, match="another"):
        compare(model, images, scored, wanted, out=out, seed=1)
    out.write_text("[]")
    with pytest.raises(ConfigError, match="not a file of results"):
        compare(model, images, scored, wanted, out=out)


def test_other_data_are_not_continued(task, tmp_path: Path) -> None:
    model, images, scored = task
    out, wanted = tmp_path / "compare.json", [Case("uniform", "nearest", 3)]
    compare(model, images, scored, wanted, out=out)
    others = [
        ("data", images + 1, scored),
        ("evaluation", images, [(images, 3 - scored[0][1])]),
        ("evaluation", images, [(images * 2, scored[0][1])]),
    ]
    for part, data, evaluation in others:
        with pytest.raises(ConfigError, match=f"differs in {part};"):
            compare(model, data, evaluation, wanted, out=out)
    again = compare(model, images.split(32), scored, wanted, out=out)  # the same samples, given otherwise
    assert again.results["uniform nearest 3"]["bits"] == 3


def test_every_case_sees_data_that_can_be_read_once(task) -> None:
    model, images, scored = task
    wanted = [Case("uniform", "gptq", 3), Case("uniform", "gptq", 2)]
    once = compare(model, (part for part in images.split(16)), iter(scored), wanted)
    often = compare(model, list(images.split(16)), scored, wanted)
    for label, one in once.results.items():
        assert "error" not in one and {**one, "seconds": 0} == {**often.results[label], "seconds": 0}


def test_a_large_file_of_results_is_not_read(task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, scored = task
    (tmp_path / "compare.json").write_text(" " * 2000)
    monkeypatch.setattr(importlib.import_module("corank.verbs.compare"), "_LARGEST_BYTES", 1000)
    with pytest.raises(ConfigError, match="larger than"):
        compare(model, images, scored, [Case("uniform", "nearest", 3)], out=tmp_path / "compare.json")


def test_cases_at_the_same_time_give_the_same(task) -> None:
    model, images, scored = task
    wanted = [Case("uniform", rounder, bits) for bits in (4, 3, 2) for rounder in ("nearest", "gptq")]
    threads = torch.get_num_threads()
    alone, together = (compare(model, images, scored, wanted, jobs=jobs) for jobs in (1, 3))
    for label, one in alone.results.items():
        other = together.results[label]
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert torch.get_num_threads() == threads


def test_jobs() -> None:
    with pytest.raises(ConfigError, match="jobs=0"):
        compare(nn.Linear(2, 2), torch.randn(4, 2), torch.randn(4, 2), jobs=0)
