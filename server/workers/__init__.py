"""`--workers N`: several server processes on one machine, kept running and renewed one by one."""

from server.workers.supervisor import supervise
from server.workers.zygote import hatch, is_zygote

__all__ = ["hatch", "is_zygote", "supervise"]
