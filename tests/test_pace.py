"""The seconds that are left, against what they were."""

from __future__ import annotations

import random
from statistics import median

import pytest

from job.pace import Pace

# `make demo` (SmolLM2-135M-Instruct, 2 rows a step) on 2 CPU cores that other work took away now
# and then, for up to a minute: seconds and tokens of its steps.
SECONDS = [
    *(1.8, 1.76, 2.16, 2.27, 3.07, 1.81, 6.26, 30.92, 14.47, 2.82, 1.9, 1.73, 1.85, 2.48, 2.4),
    *(24.25, 1.7, 1.64, 2.71, 2.77, 1.72, 1.82, 72.73, 24.36, 2.26, 1.44, 1.73, 1.34, 1.65, 1.43),
    *(1.79, 2.93, 1.85, 1.88, 1.6, 1.58, 1.57, 1.5, 30.24, 2.1, 2.21, 2.17, 1.65, 2.31, 1.87),
    *(2.21, 2.23, 1.92, 2.27, 2.1, 1.78, 1.88, 1.86, 2.0, 3.2),
]
TOKENS = [
    *(
        306,
        333,
        391,
        499,
        530,
        385,
        469,
        417,
        363,
        504,
        357,
        343,
        357,
        425,
        518,
        388,
        353,
        349,
        564,
    ),
    *(
        539,
        380,
        402,
        785,
        424,
        547,
        341,
        420,
        327,
        404,
        340,
        376,
        687,
        460,
        472,
        394,
        383,
        353,
        346,
    ),
    *(441, 503, 358, 508, 393, 532, 386, 403, 469, 347, 499, 449, 352, 382, 370, 371, 669),
]


def told(seconds: list[float], tokens: list[int]) -> list[float]:
    """What was said to be left after each step."""
    pace, seen, found = Pace(len(tokens), sum(tokens)), 0, []
    for step, (took, count) in enumerate(zip(seconds, tokens, strict=True), 1):
        seen += count
        pace.stepped(took, count)
        found.append(pace.left(step, len(tokens), seen, looks=0))
    return found


def errors(seconds: list[float], tokens: list[int], truth: list[float]) -> list[float]:
    """As shares of the truth, from a tenth of the steps on to nine tenths."""
    left, steps = told(seconds, tokens), len(tokens)
    within = range(-(-steps // 10), steps * 9 // 10)
    return [abs(left[step - 1] / sum(truth[step:]) - 1) for step in within]


def test_a_recorded_run_is_foreseen_but_for_what_disturbed_it() -> None:
    usual = median(s / t for s, t in zip(SECONDS, TOKENS, strict=True))
    undisturbed = [
        took if took <= 2 * usual * count else usual * count
        for took, count in zip(SECONDS, TOKENS, strict=True)
    ]
    after_a_tenth, *later = errors(SECONDS, TOKENS, undisturbed)
    assert after_a_tenth < 0.15
    assert max(later) < 0.2


def compiled(seed: int, noise: float = 0.1) -> list[float]:
    """Steps of these tokens as the H100 of docs/benchmarks.md began: 57 s, then 46 s, of compiling.

    Afterwards 1,892 tokens/s there in the median; here with `noise` on each step, and a fourth step
    that compiles once more.
    """
    dice = random.Random(seed)  # noqa: S311
    steps = [30 * count / 1892 * dice.gauss(1, noise) for count in TOKENS]
    return [57.0, 46.0, steps[2], steps[3] + 40.0, *steps[4:]]


@pytest.mark.parametrize("seed", range(20))
def test_slow_first_steps_that_compile_do_not_spoil_it(seed: int) -> None:
    seconds = compiled(seed)
    assert max(errors(seconds, TOKENS, seconds)) < 0.15


def test_a_machine_that_becomes_slower_for_good_is_believed() -> None:
    seconds = [count / 100 for count in TOKENS[:25]] + [count / 30 for count in TOKENS[25:]]
    left = told(seconds, TOKENS)
    assert left[46 - 1] == pytest.approx(sum(seconds[46:]), rel=0.15)


def test_long_and_short_rows_are_told_apart() -> None:
    tokens = [100] * 10 + [1000] * 10  # the long ones come last
    seconds = [count / 100 for count in tokens]
    assert max(errors(seconds, tokens, seconds)) == pytest.approx(0)


def test_the_only_step_counts_until_there_are_others_and_the_last_one_leaves_nothing() -> None:
    left = told([57.0, 2.0, 2.0], [100, 100, 100])
    assert left == pytest.approx([114.0, 2.0, 0.0])


def test_evaluations_to_come_and_a_shortened_schedule_are_counted() -> None:
    pace = Pace(100, 10_000)
    for _ in range(5):
        pace.stepped(1.0, 100)
    pace.looked(7.0)
    assert pace.left(5, 100, 500, looks=2) == pytest.approx(95 + 14)
    assert pace.left(5, 50, 500, looks=0) == pytest.approx(45)
