"""The weight that best gives the float outputs from quantized inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from corank.statistics import CrossMoments


def brute_force(weight: Tensor, ideal: Tensor, real: Tensor, ridge: float) -> Tensor:
    """Ridge regression of the float outputs on the quantized inputs, pulled to ``weight``: stacked least squares."""
    pull = (ridge * real.square().mean() * len(real)) ** 0.5 * torch.eye(real.shape[1], dtype=real.dtype)
    left = torch.cat([real, pull])
    right = torch.cat([ideal @ weight.T, pull @ weight.T])
    return torch.linalg.lstsq(left, right).solution.T


def test_corrected_weight_is_the_ridge_regression() -> None:
    ideal = torch.randn(300, 6)
    real = ideal + 0.3 * torch.randn(300, 6) + 0.2
    weight = torch.randn(1, 4, 6)
    drift = CrossMoments(1, 6)
    for rows in (slice(0, 100), slice(100, 300)):
        drift.update_pair(ideal[None, rows], real[None, rows], 5)
    expected = brute_force(weight[0].double(), ideal.double(), real.double(), 0.05)
    assert torch.allclose(drift.corrected(weight, False, 0.05)[0].double(), expected, atol=1e-4)
    centred = brute_force(weight[0].double(), (ideal - ideal.mean(0)).double(), (real - real.mean(0)).double(), 0.05)
    assert torch.allclose(drift.corrected(weight, True, 0.05)[0].double(), centred, atol=1e-4)


def test_without_drift_the_weight_stays_and_with_a_large_pull_too() -> None:
    rows, weight = torch.randn(2, 50, 3), torch.randn(2, 4, 3)
    same = CrossMoments(2, 3)
    same.update_pair(rows, rows, 1)
    assert torch.allclose(same.corrected(weight, True, 0.01), weight, atol=1e-5)
    other = CrossMoments(2, 3)
    other.update_pair(rows, torch.randn(2, 50, 3), 1)
    assert not torch.allclose(other.corrected(weight, False, 0.01), weight, atol=1e-2)
    assert torch.allclose(other.corrected(weight, False, 1e6), weight, atol=1e-4)


def test_cross_moment_and_centred_twin() -> None:
    ideal = torch.randn(2, 300, 5) + 0.7
    real = 0.8 * ideal + 0.3 * torch.randn(2, 300, 5) - 0.4
    drift = CrossMoments(2, 5)
    for rows in (slice(0, 120), slice(120, 300)):
        drift.update_pair(ideal[:, rows], real[:, rows], 5)
    assert torch.allclose(drift.cross, ideal.transpose(1, 2) @ real / 300, atol=1e-5)
    centred = drift.centred()
    ideal, real = ideal - ideal.mean(1, keepdim=True), real - real.mean(1, keepdim=True)
    assert torch.allclose(centred.cross, ideal.transpose(1, 2) @ real / 300, atol=1e-5)
    assert torch.allclose(centred.gram.matrix, real.transpose(1, 2) @ real / 300, atol=1e-5)
    assert torch.equal(centred.float_mean, torch.zeros(2, 5))


def test_inputs_that_do_not_vary_leave_their_weights() -> None:
    """Their variance in float32 is rounding noise, of either sign, that no damping knows the size of."""
    rows = torch.randn(1, 400, 6)
    stuck = rows.clone()
    stuck[..., :4] = torch.tensor([1000.0, 0.0, -3e5, 777.0]) + 1e-3 * torch.randn(1, 400, 4)
    drift, weight = CrossMoments(1, 6), torch.randn(1, 5, 6)
    drift.update_pair(rows, stuck, 1)
    centred = drift.centred()
    for column in (0, 2, 3):
        assert not centred.gram.matrix[0, column].any() and not centred.cross[0, :, column].any()
    assert float(centred.gram.matrix[0, 1, 1]) > 0  # about zero there is no noise
    found = drift.corrected(weight, True, 0.02)
    assert torch.allclose(found[..., [0, 2, 3]], weight[..., [0, 2, 3]], atol=1e-5)
    assert torch.allclose(found[..., 4:], weight[..., 4:], atol=0.5)


def test_corrections_around_a_large_mean_are_those_of_the_shifted_inputs() -> None:
    torch.manual_seed(0)
    weight, ideal = torch.randn(1, 5, 16), torch.randn(1, 400, 16)
    real = ideal + 0.1 * torch.randn(1, 400, 16)
    near, far = CrossMoments(1, 16), CrossMoments(1, 16)
    for start in range(0, 400, 100):
        near.update_pair(ideal[:, start : start + 100], real[:, start : start + 100], 100)
        far.update_pair(500 + ideal[:, start : start + 100], 500 + real[:, start : start + 100], 100)
    expected = near.corrected(weight, centred=True, ridge=0.02)
    torch.testing.assert_close(far.corrected(weight, centred=True, ridge=0.02), expected, rtol=1e-2, atol=1e-3)
