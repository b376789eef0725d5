"""How loaded this replica is, in the form that load balancers read: an ORCA report.

Pure: the time is an argument. Format: xds.data.orca.v3.OrcaLoadReport, protobuf; see
https://github.com/cncf/xds/blob/main/xds/data/orca/v3/orca_load_report.proto
"""

import math
import struct
from dataclasses import dataclass

TRAILER = "endpoint-load-metrics-bin"
MEMORY = 3.0  # s; what happened so long ago counts for 1/e

# Tags of three `double` fields of OrcaLoadReport: (number << 3) | 1.
RPS_FRACTIONAL = 6 << 3 | 1
EPS = 7 << 3 | 1
APPLICATION_UTILIZATION = 9 << 3 | 1

LEAST = 1e-4  # utilisation; below it the ratio of two small numbers says nothing


class Rate:
    """Amount per second, exponentially forgotten with the time constant MEMORY."""

    def __init__(self) -> None:
        self._amount = 0.0
        self._at = 0.0

    def add(self, amount: float, now: float) -> None:
        self._amount = self._left(now) + amount
        self._at = now

    def per_second(self, now: float) -> float:
        return self._left(now) / MEMORY

    def _left(self, now: float) -> float:
        return self._amount * math.exp((self._at - now) / MEMORY)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """Rates per second; utilisation 1 is a device that is always busy with nothing in the queue."""

    utterances: float
    errors: float
    utilization: float

    def to_bytes(self) -> bytes:
        """The protobuf message."""
        return struct.pack(
            "<BdBdBd",
            *(RPS_FRACTIONAL, self.utterances),
            *(EPS, self.errors),
            *(APPLICATION_UTILIZATION, self.utilization),
        )


class LoadMeter:
    """Sums up what the reports of calls and batches say.

    A balancer weighs a replica by rate / utilisation. Both are forgotten at the same pace, so that
    their ratio, what one second of the device is good for, is right from the first batch on.
    """

    def __init__(self, devices: int = 1) -> None:
        self._devices = devices
        self._served = Rate()
        self._errors = Rate()
        self._busy = Rate()

    def failed(self, now: float) -> None:
        """A call ended by a fault of the server, not of its caller or of the load."""
        self._errors.add(1.0, now)

    def batch_ran(self, size: int, run_time: float, now: float) -> None:
        """`size` utterances took `run_time` seconds of a device."""
        self._served.add(size, now)
        self._busy.add(run_time, now)

    def report(self, now: float, drain_time: float) -> LoadReport | None:
        """None if too little ran lately to say anything: balancers then assume the mean.

        `drain_time`: seconds of work that wait; each counts like one more busy device.
        """
        busy = self._busy.per_second(now) / self._devices
        if busy < LEAST:
            return None
        return LoadReport(
            self._served.per_second(now), self._errors.per_second(now), busy + drain_time
        )
