"""How long a training will still take, from what its steps have taken so far. Pure.

Steps differ in their tokens, which are known beforehand, so what is estimated is the time of a
token. The first steps compile and tune kernels, and any later one may compile for a new shape or
wait for a disk: steps that took far more than is usual say nothing of those to come.
"""

from __future__ import annotations

from statistics import median

SKIPPED = 2  # first steps of a process
NEWEST = 20  # steps that count
USUAL = 2.0  # times the median time of a token, beyond which a step does not count


class Pace:
    """The steps of one process.

    Args:
        steps: optimizer steps as they were planned.
        tokens: of all these steps.
    """

    def __init__(self, steps: int, tokens: int) -> None:
        self._tokens = tokens
        self._steps = steps
        self._taken: list[tuple[float, int]] = []  # seconds and tokens of each step
        self._look = 0.0

    def stepped(self, seconds: float, tokens: int) -> None:
        """A step is done."""
        self._taken.append((seconds, tokens))

    def looked(self, seconds: float) -> None:
        """Held-out rows were evaluated once."""
        self._look = seconds

    def left(self, step: int, of: int, seen: int, looks: int) -> float:
        """Seconds until the last optimizer step; a step must have been done.

        Args:
            step, of: steps done, and in all; fewer than planned when the budget shortened them.
            seen: tokens of the steps done, those of earlier processes included.
            looks: evaluations of held-out rows until then.
        """
        if step >= of:
            return 0.0
        tokens = self._tokens * of / self._steps - seen
        counted = self._taken[SKIPPED:][-NEWEST:] or self._taken[-1:]
        most = USUAL * median(seconds / count for seconds, count in counted)
        usual = [(seconds, count) for seconds, count in counted if seconds <= most * count]
        of_a_token = sum(s for s, _ in usual) / sum(count for _, count in usual)
        return tokens * of_a_token + looks * self._look
