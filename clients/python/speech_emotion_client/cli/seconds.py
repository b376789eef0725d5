"""Seconds as options take them: numbers, and no more than a message holds."""

import math
from typing import Any

import click

LONGEST = 4_000_000.0
"""46 days; a message counts milliseconds in 32 bits."""


class Seconds(click.FloatRange):
    """A range of floats lets NaN through, which is on no side of a limit."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


POSITIVE = Seconds(0, LONGEST, min_open=True)
NOT_NEGATIVE = Seconds(0, LONGEST)
