from __future__ import annotations

import math

import pytest

from glassnet.training.schedule import SCHEDULES, learning_rate_factor

TABLE = {
    ("constant", None): [1, 1, 1, 1],
    ("linear", None): [1, 0.75, 0.5, 0.25],
    ("cosine", None): [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2],
    ("step", None): [1, 1, 0.1, 0.01],
    ("exponential", None): [1, 0.01**0.25, 0.1, 0.01**0.75],
    ("linear", 0.5): [0.5, 1, 1, 0.5],
    ("one-cycle", 0.5): [0.5, 1, 1, 0.5],
}


@pytest.mark.parametrize(("schedule", "warmup"), TABLE)
def test_the_factors_over_four_steps_are_those_of_the_table(schedule: str, warmup: float | None) -> None:
    factors = [learning_rate_factor(schedule, step, 4, warmup) for step in range(4)]
    assert factors == pytest.approx(TABLE[schedule, warmup])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [None, 0.0, 0.3, 0.99])
def test_no_step_is_left_without_a_learning_rate(schedule: str, num_steps: int, warmup: float | None) -> None:
    factors = [learning_rate_factor(schedule, step, num_steps, warmup) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1


def test_one_cycle_warms_up_over_a_fifth_of_the_steps() -> None:
    factors = [learning_rate_factor("one-cycle", step, 100) for step in range(100)]
    assert factors.index(1.0) == 19
    assert factors[:20] == pytest.approx([(step + 1) / 20 for step in range(20)])
    assert factors[20:] == sorted(factors[20:], reverse=True)
