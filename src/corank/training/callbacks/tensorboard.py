"""The numbers of a training for TensorBoard, as it goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import ConfigError
from corank.processes import is_main
from corank.training.callbacks.base import Callback

if TYPE_CHECKING:
    from corank.training.state import TrainingState

__all__ = ["TensorBoard"]


class TensorBoard(Callback):
    """Writes what other callbacks measured, and the learning rate, into a folder that ``tensorboard --logdir`` shows.

    An argument of the call and no part of a recipe, since it holds a path; it stands after the callbacks whose numbers
    it writes. A run that goes on overwrites the steps that it does again. Of several processes the first writes.

    Args:
        folder: of the event files; made where it is missing.

    Raises:
        ConfigError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("TensorBoard needs tensorboard: pip install 'corank[tensorboard]'") from error
        self.folder = Path(folder)
        self._open = SummaryWriter
        self._writer: Any = None

    def start(self, state: TrainingState) -> None:
        if is_main():
            self._writer = self._open(str(self.folder), purge_step=state.step + 1)

    def step_done(self, state: TrainingState) -> None:
        if self._writer is None:
            return
        numbers = dict(state.measured)
        if state.optimizer is not None:
            numbers["learning rate"] = float(state.optimizer.param_groups[0]["lr"])
        for name, value in numbers.items():
            self._writer.add_scalar(f"training/{name}", value, state.step + 1)

    def finished(self, state: TrainingState) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
