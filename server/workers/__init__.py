"""`--workers N`: several server processes on one machine, kept running and renewed one by one."""

from server.workers.supervisor import supervise

__all__ = ["supervise"]
