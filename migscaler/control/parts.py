"""What a loop is made of."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from migscaler.control.activity import ActivityBook
from migscaler.control.enforce import Enforcer
from migscaler.control.gather import Gatherer
from migscaler.control.observe import Observer
from migscaler.model.decision import WindowState
from migscaler.model.policy import Policy
from migscaler.model.ports import Clock
from migscaler.model.stats import CallStats, SchedulerStats, WebStats
from migscaler.model.status import ConfigStatus, Status
from migscaler.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a loop is made of.

    `evaluate_windows` answers from the calendar; `enforcer` is None where nothing may act.
    """

    observer: Observer
    gatherer: Gatherer
    store: Store
    clock: Clock
    policy: Policy
    evaluate_windows: Callable[[datetime], tuple[WindowState, ...]]
    call_stats: Callable[[], CallStats]
    publish: Callable[[Status], None]
    version: str
    enforcer: Enforcer | None = None
    job_stats: Callable[[], SchedulerStats] = SchedulerStats
    web_stats: Callable[[], WebStats] = WebStats
    config: ConfigStatus = field(default_factory=ConfigStatus)
    activity: ActivityBook = field(default_factory=ActivityBook)
