"""How long a batch will take, learnt from what batches really took. Knows no clock."""

from math import inf

WARM = 8
"""Observations before an outlier is called one."""

TINY = 1e-6
"""Length units; a batch that costs less says nothing of what length costs."""

OUTLIER = 4.0
"""A run slower than this many predictions counts as this many: a hiccup moves the model little,
and a device that has really become slower still convinces it within a few batches."""


class CostModel:
    """Predicts `per_cost * cost + per_batch` seconds, `cost` in padded length units.

    Least squares with exponential forgetting (recursive least squares with forgetting factor
    1 - 1/memory, Haykin, Adaptive Filter Theory, ch. 10), both coefficients kept non-negative.
    """

    def __init__(
        self, per_cost: float = 0.0, per_batch: float = 0.0, *, memory: float = 64.0
    ) -> None:
        self.per_cost = per_cost
        self.per_batch = per_batch
        self._keep = 1 - 1 / memory
        self._seen = 0
        self._weight = self._x = self._y = self._xx = self._xy = 0.0

    def __repr__(self) -> str:
        return f"<CostModel {self.per_cost:.3g} s * cost + {self.per_batch:.3g} s>"

    def predict(self, cost: float, batches: float = 1.0) -> float:
        """Seconds for `batches` that cost `cost` together."""
        return self.per_cost * cost + self.per_batch * batches

    def observe(self, cost: float, run_time: float) -> None:
        """Takes note that a batch of `cost` took `run_time` seconds of a device."""
        cost = cost if cost > TINY else 0.0
        limit = OUTLIER * self.predict(cost) if self._seen >= WARM else inf
        y = min(run_time, limit or inf)
        keep = self._keep
        self._seen += 1
        self._weight = keep * self._weight + 1
        self._x = keep * self._x + cost
        self._y = keep * self._y + y
        self._xx = keep * self._xx + cost * cost
        self._xy = keep * self._xy + cost * y
        self._fit()

    def _fit(self) -> None:
        mean_x, mean_y = self._x / self._weight, self._y / self._weight
        variance = self._xx / self._weight - mean_x**2
        # Costs that hardly differ say nothing of the slope: keep the shape, correct the scale.
        if variance <= 0.01 * mean_x**2:
            self._rescale(mean_x, mean_y)
            return
        slope = (self._xy / self._weight - mean_x * mean_y) / variance
        if slope <= 0:
            self.per_cost, self.per_batch = 0.0, mean_y
        elif slope * mean_x > mean_y:
            self.per_cost, self.per_batch = self._xy / self._xx, 0.0
        else:
            self.per_cost, self.per_batch = slope, mean_y - slope * mean_x

    def _rescale(self, mean_x: float, mean_y: float) -> None:
        predicted = self.predict(mean_x)
        if predicted > 0:
            self.per_cost *= mean_y / predicted
            self.per_batch *= mean_y / predicted
        elif mean_x > 0:
            self.per_cost = mean_y / mean_x
        else:
            self.per_batch = mean_y
