"""Settings of what watches over a run: when it must stop, and whether it goes on by itself."""

from dataclasses import dataclass

from utils.errors import demand


@dataclass(kw_only=True)
class GuardConfig:
    """When a run must stop, and how it goes on."""

    nonfinite_steps: int = 3
    """Stop after this many steps in a row whose loss is NaN or infinite."""
    compare_ranks_every: int | None = 500
    """Steps between two comparisons of the ranks' weights, bit for bit; where they differ all ranks stop. null makes none."""
    requeue: bool = False
    """Under SLURM: after a time limit or a preemption ask for another turn, and go on from the run folder's newest checkpoint."""
    restarts: int = 20
    """Most turns that are asked for; the first one is not counted."""

    def __post_init__(self) -> None:
        """State the ranges."""
        demand(
            (self.nonfinite_steps >= 1, f"nonfinite_steps = {self.nonfinite_steps}: must be at least 1"),
            (
                self.compare_ranks_every is None or self.compare_ranks_every >= 1,
                f"compare_ranks_every = {self.compare_ranks_every}: must be at least 1, or null",
            ),
            (self.restarts >= 0, f"restarts = {self.restarts}: must be 0 or more"),
        )
