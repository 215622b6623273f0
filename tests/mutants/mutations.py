"""Ways to break each promise on purpose, and the tests that must then fail.

A mutation replaces one piece of a product file, found there exactly once.
`tests/unit/test_mutants.py` keeps the pieces findable; `make mutants` applies each and runs its
tests.
"""

from dataclasses import dataclass

_CONTROL = "tests/unit/control"
_IDLENESS = "tests/unit/policy/test_idleness.py"
_EXECUTOR = f"{_CONTROL}/test_executor.py"
_FAULTS = f"{_CONTROL}/test_executor_faults.py"
_CRASH = "tests/simulation/test_crash_executor.py"
_CRASH_RESTORE = "tests/simulation/test_crash_restore.py"
_COMEBACK = "tests/unit/app/test_comeback_again.py"
_OPEN_PLANS = "tests/unit/app/test_open_plans.py"
_MIG_MODE = "tests/unit/app/test_mig_mode_refused.py"
_DECIDE = "tests/property/test_policy_decide.py"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """One way to break a promise: `old` in the file at `path` becomes `new`.

    `promise` is its letter in docs/reliability.md; at least one of `tests` must fail.
    """

    promise: str
    breaks: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    # a: what is in use, allocated, held, protected or not known to be idle is never destroyed
    Mutation(
        promise="a",
        breaks="the last look overlooks processes",
        path="migscaler/control/last_look.py",
        old="    if one.processes:\n",
        new="    if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="the last look overlooks memory in use",
        path="migscaler/control/last_look.py",
        old="    if one.memory_used_bytes > memory_limit_bytes:\n",
        new="    if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="the last look overlooks what the scheduler handed out",
        path="migscaler/control/last_look.py",
        old="        if claim.gpu_uuid == reading.uuid and claim.mig_uuid in uuids:\n",
        new="        if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="unknown allocations count as none",
        path="migscaler/control/last_look.py",
        old="    if not allocations.known:\n",
        new="    if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="what samples saw since the decision is not heeded",
        path="migscaler/control/last_look.py",
        old="    return OutcomeReason.NO_LONGER_IDLE if pinned else None\n",
        new="    return None\n",
        tests=(f"{_CONTROL}/test_loop_acting.py",),
    ),
    Mutation(
        promise="a",
        breaks="the journal's transaction does not look for holds and leases",
        path="migscaler/store/journal.py",
        old="    if request.action in DESTROYS or request.purpose is Purpose.FORWARD:\n",
        new="    if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="a gap in the samples does not start the idle timer anew",
        path="migscaler/policy/idleness.py",
        old="        return 0 <= self.reading.taken_monotonic - last_seen <= self.longest_gap\n",
        new="        return True\n",
        tests=(_IDLENESS,),
    ),
    Mutation(
        promise="a",
        breaks="a quiet moment is enough",
        path="migscaler/policy/idleness.py",
        old="    if quiet >= after:\n",
        new="    if quiet >= 0:\n",
        tests=(_IDLENESS,),
    ),
    Mutation(
        promise="a",
        breaks="an instance that is not made as ours are may be idle",
        path="migscaler/policy/idleness.py",
        old="    if reading.instance.usable or is_ours:\n",
        new="    if True:\n",
        tests=(_IDLENESS,),
    ),
    Mutation(
        promise="a",
        breaks="a person's hold does not pin",
        path="migscaler/policy/idleness.py",
        old='        if h.kind == "hold" and h.gpu_uuid == uuid and h.spec in (None, spec)\n',
        new="        if False\n",
        tests=(_IDLENESS,),
    ),
    Mutation(
        promise="a",
        breaks="an instance made anew at the same place passes for the one judged idle",
        path="migscaler/control/last_look.py",
        old="        if now is not None and now.instance.mig_uuid != one.instance.mig_uuid:\n",
        new="        if False:\n",
        tests=(_EXECUTOR,),
    ),
    Mutation(
        promise="a",
        breaks="the NVML worker of another account does not look itself before it destroys",
        path="migscaler/app/nvml_guard.py",
        old='        self._refuse_used("nvmlComputeInstanceDestroy", uuid, gi_id)\n',
        new="",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="a",
        breaks="a hold does not keep a GPU from being switched off",
        path="migscaler/app/commands_acting.py",
        old="            if hold.gpu_uuid == gpu.uuid:\n",
        new="            if False:\n",
        tests=(_MIG_MODE,),
    ),
    # b: no node ends a change with fewer usable instances than min(before, after)
    Mutation(
        promise="b",
        breaks="what was destroyed is not made again",
        path="migscaler/control/put_back.py",
        old="        self._rebuild()\n",
        new="",
        tests=(_FAULTS,),
    ),
    Mutation(
        promise="b",
        breaks="an instance cut open does not get its compute instance back",
        path="migscaler/control/put_back.py",
        old="        self._close_open(self._ledger())\n",
        new="",
        tests=(_FAULTS,),
    ),
    Mutation(
        promise="b",
        breaks="a call's answer is trusted instead of the GPU",
        path="migscaler/control/steps_run.py",
        old="        if happened:\n            store.end_step",
        new="        if error is None:\n            store.end_step",
        tests=(_FAULTS,),
    ),
    Mutation(
        promise="b",
        breaks="a failed plan is not undone",
        path="migscaler/control/executor.py",
        old="        if not self._runner.changed:\n            return self._unchanged(stop)\n",
        new="        return self._unchanged(stop)\n",
        tests=(_FAULTS,),
    ),
    Mutation(
        promise="b",
        breaks="MIG mode is switched on during a pause, and the GPU stays empty",
        path="migscaler/app/commands_acting.py",
        old="        self._must_not_be_paused()\n        store, index",
        new="        store, index",
        tests=(_MIG_MODE,),
    ),
    Mutation(
        promise="b",
        breaks="an open plan keeps nothing from changing",
        path="migscaler/control/request.py",
        old="        if snapshot is None or (gpu is not None and gpu.instances is not None):\n",
        new="        if False:\n",
        tests=(_OPEN_PLANS,),
    ),
    # c: a crash at any point is settled at the next start
    Mutation(
        promise="c",
        breaks="open plans are not looked for",
        path="migscaler/control/recovery.py",
        old="    for record in store.open_plans():\n",
        new="    for record in ():\n",
        tests=(_CRASH,),
    ),
    Mutation(
        promise="c",
        breaks="a call in doubt counts as not made",
        path="migscaler/control/put_back.py",
        old="            state = StepState.DONE if happened else StepState.VOID\n",
        new="            state = StepState.VOID\n",
        tests=(_CRASH,),
    ),
    Mutation(
        promise="c",
        breaks="a call in doubt counts as made",
        path="migscaler/control/put_back.py",
        old="            state = StepState.DONE if happened else StepState.VOID\n",
        new="            state = StepState.DONE\n",
        tests=(_CRASH,),
    ),
    Mutation(
        promise="c",
        breaks="what a cut plan had made stays",
        path="migscaler/control/put_back.py",
        old="        self._remove_created(reading)\n",
        new="",
        tests=(_CRASH,),
    ),
    Mutation(
        promise="c",
        breaks="a fence outlives the process that set it",
        path="migscaler/control/recovery.py",
        old="    problem = site.scheduler.unfence(record.gpu_uuid)\n",
        new="    problem = None\n",
        tests=(_CRASH,),
    ),
    Mutation(
        promise="c",
        breaks="a GPU is changed while a call given up on may still change it",
        path="migscaler/hardware/worker_records.py",
        old="            if left:\n",
        new="            if False:\n",
        tests=("tests/unit/hardware/test_worker_given_up.py",),
    ),
    Mutation(
        promise="c",
        breaks="a plan is settled by a look while a call given up on may still come through",
        path="migscaler/hardware/worker.py",
        old="            self._records.refuse_if_haunted(uuid)\n            return lane.ask(uuid",
        new="            return lane.ask(uuid",
        tests=("tests/simulation/test_driver_faults.py",),
    ),
    Mutation(
        promise="c",
        breaks="a daemon started anew settles while another account's call may still come through",
        path="migscaler/app/nvml_worker.py",
        old='            if name == "read_gpu":\n',
        new="            if False:\n",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="a command settles while another account's call may still come through",
        path="migscaler/app/hardware_lock.py",
        old="        self._lock.of_gpu(uuid).refuse_if_held()\n",
        new="",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="a daemon with a child of its own settles while a service's call may come through",
        path="migscaler/app/daemon.py",
        old="reader=SettledReader(self._worker, self._lock),\n",
        new="reader=self._worker,\n",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="a worker begins what was given up on, after the GPU was looked at",
        path="migscaler/app/nvml_worker.py",
        old="        if self._hung_up.poll(0):\n",
        new="        if False:\n",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="the right to change is asked for before others are kept off the GPU",
        path="migscaler/app/nvml_worker.py",
        old="            with self._alone_on(arguments):\n",
        new="            self._refuse_others()\n            with self._alone_on(arguments):\n",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="a change that does not come back counts as over once many have asked",
        path="migscaler/app/hardware_lock.py",
        old='            holder = "a process that was asked too often to answer"\n',
        new="            return\n",
        tests=("tests/contract/test_nvml_service.py",),
    ),
    Mutation(
        promise="c",
        breaks="a restore that was cut short is undone",
        path="migscaler/control/recovery.py",
        old="    back = finish_restore(runner, record) if record.is_restore else ",
        new="    back = ",
        tests=(_CRASH_RESTORE,),
    ),
    Mutation(
        promise="c",
        breaks="a start restores by the picture taken before it settled",
        path="migscaler/app/runtime.py",
        old="            if self.loop.sample() is None:\n                return\n            self",
        new="            self",
        tests=(_OPEN_PLANS,),
    ),
    Mutation(
        promise="c",
        breaks="of a GPU that lost everything only what its open plan took is made again",
        path="migscaler/control/recovery.py",
        old="    if not found.instances and _has_left_some(site, record):\n",
        new="    if False:\n",
        tests=(_OPEN_PLANS,),
    ),
    Mutation(
        promise="c",
        breaks="a restore that failed is never tried again",
        path="migscaler/app/comeback.py",
        old="next_at=now + wait)",
        new='next_at=float("inf"))',
        tests=(_COMEBACK,),
    ),
    Mutation(
        promise="c",
        breaks="the rest of a restore is given up at once",
        path="migscaler/control/restoring.py",
        old="        if not goes_on:\n",
        new="        if True:\n",
        tests=(f"{_CONTROL}/test_recovery.py",),
    ),
    Mutation(
        promise="c",
        breaks="a restore switches MIG mode on during a pause",
        path="migscaler/control/restoring.py",
        old="        if pause is not None:\n",
        new="        if False:\n",
        tests=(_COMEBACK,),
    ),
    Mutation(
        promise="c",
        breaks="an open plan of another boot waits for its GPU",
        path="migscaler/control/recovery.py",
        old="        is_past = record.boot_id != boot_id\n",
        new="        is_past = False\n",
        tests=(_OPEN_PLANS,),
    ),
    Mutation(
        promise="c",
        breaks="settling acts beside another owner",
        path="migscaler/app/runtime.py",
        old="        if snapshot is None or not snapshot.is_ours or self.loop",
        new="        if snapshot is None or self.loop",
        tests=(_OPEN_PLANS,),
    ),
    Mutation(
        promise="c",
        breaks="what settling and restoring made gets no device nodes",
        path="migscaler/app/telling.py",
        old="            for tell in self._assembly.ground.tell_node:\n",
        new="            for tell in ():\n",
        tests=("tests/unit/app/test_telling.py",),
    ),
    # d: missing data can veto a change, never justify one
    Mutation(
        promise="d",
        breaks="an old answer goes on counting",
        path="migscaler/policy/demand.py",
        old="    if not status.known or reading is None:\n",
        new="    if reading is None:\n",
        tests=("tests/unit/policy/test_demand.py", _DECIDE),
    ),
    Mutation(
        promise="d",
        breaks="a size that an answer leaves out counts as not wanted",
        path="migscaler/policy/demand.py",
        old="    if count is None and not reading.absent_is_zero:\n",
        new="    if False:\n",
        tests=("tests/unit/policy/test_demand.py",),
    ),
    Mutation(
        promise="d",
        breaks="a veto that does not answer does not stand",
        path="migscaler/policy/gates.py",
        old="        if status is not None and status.active is False:\n",
        new="        if status is not None and not status.active:\n",
        tests=("tests/unit/policy/test_gates.py",),
    ),
    Mutation(
        promise="d",
        breaks="a freeze whose window was not evaluated does not stand",
        path="migscaler/policy/gates.py",
        old="        if state is not None and not state.open:\n",
        new="        if state is None or not state.open:\n",
        tests=("tests/unit/policy/test_gates.py",),
    ),
    Mutation(
        promise="d",
        breaks="a silent source no longer protects what it asked for",
        path="migscaler/policy/targets.py",
        old="        hard_kept=_hard_kept(supply, history) if is_unknown else 0,\n",
        new="        hard_kept=0,\n",
        tests=(_DECIDE, "tests/unit/policy/test_demand.py"),
    ),
    Mutation(
        promise="d",
        breaks="a picture that is too old is acted on",
        path="migscaler/policy/gates.py",
        old="    if not 0 <= age <= limit:\n",
        new="    if False:\n",
        tests=("tests/unit/policy/test_gates.py", f"{_CONTROL}/test_loop_ticks.py"),
    ),
    # e: the same recorded input gives the same decision, with a stated reason
    Mutation(
        promise="e",
        breaks="the order in which GPUs are listed decides",
        path="migscaler/planner/optimise.py",
        old="        layouts=tuple(sorted(layouts.items())),\n",
        new="        layouts=tuple(layouts.items()),\n",
        tests=("tests/property/test_planner_laws.py",),
    ),
    Mutation(
        promise="e",
        breaks="the order in which gates are found decides",
        path="migscaler/policy/gates.py",
        old='key=lambda g: (_ORDER[g.reason], g.gpu_uuid or "", g.rule or "", g.explanation),\n',
        new="key=id,\n",
        tests=(_DECIDE, "tests/unit/policy/test_gates.py"),
    ),
    Mutation(
        promise="e",
        breaks="a hold does not say why",
        path="migscaler/policy/decide.py",
        old="    return Hold(reason=blocking[0].reason, explanation=summary(blocking, inp.now))\n",
        new='    return Hold(reason=blocking[0].reason, explanation="")\n',
        tests=(_DECIDE,),
    ),
    # f: a scrape shows no instance that is absent from the last snapshot
    Mutation(
        promise="f",
        breaks="an old rendering is served for a new picture",
        path="migscaler/metrics/exposition.py",
        old="        if status is self._rendered_status and self._samples is not None:\n",
        new="        if self._samples is not None:\n",
        tests=("tests/unit/metrics/test_exposition.py",),
    ),
    Mutation(
        promise="f",
        breaks="instances of a GPU that is being changed are shown",
        path="migscaler/metrics/collector.py",
        old="            if gpu.uuid not in hardware_part.withheld_gpus(status):\n",
        new="            if True:\n",
        tests=("tests/unit/metrics/test_collector.py",),
    ),
    Mutation(
        promise="f",
        breaks="old figures are shown as if they were new",
        path="migscaler/metrics/hardware_part.py",
        old="    return None if status.snapshot_stale else status.snapshot\n",
        new="    return status.snapshot\n",
        tests=("tests/unit/metrics/test_collector.py",),
    ),
    Mutation(
        promise="f",
        breaks="a change is published only after its first call",
        path="migscaler/control/executor.py",
        old='        """Publish that this plan runs, before anything of it happens."""\n',
        new='        """Publish nothing."""\n        return\n',
        tests=(_EXECUTOR, f"{_CONTROL}/test_loop_ticks.py"),
    ),
    # g: nothing in configuration or hardware can blind the exporter
    Mutation(
        promise="g",
        breaks="one broken part takes the whole exposition with it",
        path="migscaler/metrics/collector.py",
        old="            except Exception:\n",
        new="            except ZeroDivisionError:\n",
        tests=("tests/unit/metrics/test_collector.py",),
    ),
    Mutation(
        promise="g",
        breaks="a broken configuration file ends the daemon",
        path="migscaler/app/start.py",
        old="        return _fallen_back(path, error, store)\n",
        new="        raise\n",
        tests=("tests/unit/app/test_start.py",),
    ),
    Mutation(
        promise="g",
        breaks="a broken configuration file leaves the last good one acting",
        path="migscaler/app/start.py",
        old='forced_observe=f"{path} has {len(problems)} problem(s); {what}, observing only",\n',
        new="forced_observe=None,\n",
        tests=("tests/unit/app/test_start.py",),
    ),
    Mutation(
        promise="g",
        breaks="a GPU that hung is asked again at once",
        path="migscaler/hardware/exclusions.py",
        old="        if left > 0:\n",
        new="        if False:\n",
        tests=("tests/unit/hardware/test_exclusions.py",),
    ),
    Mutation(
        promise="g",
        breaks="a worker that hung is asked again",
        path="migscaler/hardware/worker_lane.py",
        old="        self._records.leave_alone(key, why)\n        self._abandon(key)\n",
        new="        self._records.leave_alone(key, why)\n",
        tests=("tests/contract/test_hardware_worker.py",),
    ),
    Mutation(
        promise="g",
        breaks="a change that hangs keeps the readings of every GPU waiting",
        path="migscaler/hardware/worker.py",
        old="                if self._patience_left() == 0.0:\n",
        new="                if False:\n",
        tests=("tests/unit/hardware/test_worker_relief.py",),
    ),
)
