"""When to write what a run says about its scores: after its best validation, and after every other evaluation."""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from lightning import Callback, LightningModule, Trainer


class Scores(Protocol):
    """The scores of an evaluation, of any task."""

    @property
    def main(self) -> float:
        """The one by which evaluations are compared, higher is better; NaN where there is none."""


S = TypeVar("S", bound=Scores)


class BestEvaluation(Callback, Generic[S]):
    """Write something about an evaluation: in a fit, about its best validation, otherwise about the set evaluated.

    Args:
        scores: gives the scores of the evaluation that has just ended, the same in every process.
    """

    goes_on = True
    """Whether this run goes on with the one whose checkpoint it loads; a new run's first evaluation is its best."""

    def __init__(self, scores: Callable[[], S | None]) -> None:
        self.scores = scores
        self.best = -math.inf

    @abstractmethod
    def write(self, trainer: Trainer, pl_module: LightningModule, scores: S) -> None:
        """Write about the evaluation that has these scores; called in every process, but only one may write files."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write; in a fit, if these are the best scores of the run so far."""
        scores = self.scores()
        if scores is None or trainer.sanity_checking:
            return
        if trainer.state.fn == "fit" and not scores.main > self.best:
            return
        self.best = scores.main
        self.write(trainer, pl_module, scores)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write."""
        scores = self.scores()
        if scores is not None:
            self.write(trainer, pl_module, scores)

    def state_dict(self) -> dict[str, Any]:
        """The best so far, so that a resumed run does not replace it by a worse one."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best so far, unless this is another run."""
        if self.goes_on:
            self.best = state_dict["best"]
