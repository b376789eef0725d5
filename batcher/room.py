"""What one batch may hold. Knows no device and no request."""

from dataclasses import dataclass

from batcher.cost import CostModel


@dataclass(frozen=True, slots=True)
class Room:
    """For the next batch of one device."""

    size: int  # requests
    cost: float  # length units, padded; a longer single request still runs, alone
    preferred_sizes: tuple[int, ...]  # see BatchPolicy
    model: CostModel  # of that device
