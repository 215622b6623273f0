"""What the daemon does periodically, under the configuration now in force."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from migscaler.app.config.settings import PushSettings, SourceSettings
from migscaler.app.jobs import Job
from migscaler.app.runtime import Runtime

_HOUSEKEEPING = timedelta(seconds=5)
_PRUNING = timedelta(hours=1)
# Beyond what fences may take, a tick with its calls, their deadlines and putting back ends by then.
_LONGEST_TICK = timedelta(minutes=10)
# A push is seen at the next turn of this period at the latest; the command itself asks at once.
_PUSH_PERIOD = timedelta(seconds=5)


def jobs_of(runtime: Runtime, sample: Callable[[], object]) -> tuple[Job, ...]:
    """Return the jobs of a node; `sample` reads it unless the driver was released."""
    loaded = runtime.loaded
    policy, loop = loaded.policy, runtime.loop
    jobs = [
        Job(name="sample", concern="sampler", every=policy.sampling, run=sample),
        Job(
            name="tick",
            concern="policy",
            every=policy.tick,
            run=runtime.tick,
            longest=_LONGEST_TICK + 2 * policy.pace.gpus_at_once * policy.pace.fence_max,
        ),
        Job(
            name="housekeeping",
            concern="housekeeping",
            every=_HOUSEKEEPING,
            run=runtime.housekeeping,
        ),
        Job(name="prune", concern="housekeeping", every=_PRUNING, run=runtime.prune),
    ]
    jobs += [_source_job(runtime, source) for source in loaded.settings.sources]
    jobs += [
        Job(
            name=f"veto:{veto.name}",
            concern="sources",
            every=veto.interval,
            run=partial(loop.gather_veto, veto.name),
        )
        for veto in loaded.settings.vetoes
    ]
    if (dcgm := loaded.settings.activity) is not None:
        ask = loop.gather_activity
        jobs.append(Job(name="dcgm", concern="sources", every=dcgm.interval, run=ask))
    return tuple(jobs)


def _source_job(runtime: Runtime, source: SourceSettings) -> Job:
    """Return the job that asks one source."""
    name = source.name
    return Job(
        name=f"source:{name}",
        concern="sources",
        every=_PUSH_PERIOD if isinstance(source, PushSettings) else source.interval,
        run=lambda: runtime.loop.gather(name),
    )
