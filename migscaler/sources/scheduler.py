"""A source that asks the node's own scheduler what waits there."""

from migscaler.model.demand import Fetched
from migscaler.model.ports import Scheduler


class SchedulerSource:
    """Passes on what the scheduler says is waiting."""

    def __init__(self, scheduler: Scheduler) -> None:
        """Take the scheduler of this node."""
        self._scheduler = scheduler

    def fetch(self) -> Fetched:
        """Return the waiting demand of the node."""
        return self._scheduler.waiting()
