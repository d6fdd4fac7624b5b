"""What of the backbone is kept as it is, and until when."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Freezing:
    """Which stages of the backbone do not learn; they stay in evaluation mode, their norms and drop path included.

    Args:
        stages: the first so many, with the patch embedding; -1 for all of the backbone.
        unfreeze_at: shares of the training, ascending; at each, one more frozen stage starts to learn, the one nearest
            the head first.
    """

    stages: int = 0
    unfreeze_at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.stages < -1:
            raise ValueError(f"freeze.stages is a number of stages, or -1 for all, got {self.stages}")
        if list(self.unfreeze_at) != sorted(self.unfreeze_at) or not all(0 < share < 1 for share in self.unfreeze_at):
            raise ValueError(
                "freeze.unfreeze_at must be shares of the training between 0 and 1, ascending (after 1 and 3 of 10 "
                f"epochs: [0.1, 0.3]), got {list(self.unfreeze_at)}"
            )

    def begin(self, num_stages: int) -> int:
        """How many stages are frozen at the first step.

        Args:
            num_stages: of the backbone.

        Raises:
            ValueError: fewer are frozen than are to be unfrozen.
        """
        frozen = num_stages if self.stages == -1 else self.stages
        if len(self.unfreeze_at) > frozen:
            raise ValueError(
                f"freeze.unfreeze_at names {len(self.unfreeze_at)} points of the training, but only {frozen} stages of "
                "the backbone are frozen: give freeze.stages as many, or -1 for all"
            )
        return frozen

    def at(self, step: int, total_steps: float, num_stages: int) -> int:
        """How many stages are frozen at an optimiser step, counted from 0; raises as :meth:`begin`."""
        return self.begin(num_stages) - sum(step >= round(share * total_steps) for share in self.unfreeze_at)

    def at_end(self, num_stages: int) -> int:
        """How many stages never learn; raises as :meth:`begin`."""
        return self.begin(num_stages) - len(self.unfreeze_at)
