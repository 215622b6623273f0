"""Rows of the metric table about demand, decisions and acting."""

# ruff: noqa: E501 (a table: one row, one line)
# fmt: off

from migscaler.metrics.family import Family, Kind, Many, row

_POLICY = "decision"
_STORE = "store"
_ACTED = "executor"

DEMAND: tuple[Family, ...] = (
    row("source_known", "", "1 if the source's last reading holds now.", Many.NODE, "source", origin="source", example="migscaler_source_known == 0"),
    row("source_reading_instances", "instances", "What the source said last of the sizes that rules ask for, by its word for them; absent once it no longer holds.", Many.NODE, "source", "size", origin="source"),
    row("source_reading_timestamp_seconds", "seconds", "Time for which the last good reading is true.", Many.NODE, "source", origin="source"),
    row("source_unknown_since_timestamp_seconds", "seconds", "Time since which the source does not answer; absent while it does.", Many.NODE, "source", origin="source"),
    row("veto_stands", "", "1 if the veto condition forbids changes, also because it can't be asked.", Many.NODE, "veto", origin="source"),
    row("veto_known", "", "1 if the veto condition answers.", Many.NODE, "veto", origin="source"),
    row("rule_info", "", "Size that the rule speaks of; always 1.", Many.NODE, "rule", "size", origin="configuration"),
    row("rule_in_use_instances", "instances", "Instances of the rule's size that have a process or an allocation.", Many.NODE, "rule", origin=_POLICY),
    row("rule_wanted_instances", "instances", "Instances wanted: in use and waiting, within floor and maximum; absent while a source of the rule is silent.", Many.NODE, "rule", origin=_POLICY),
    row("rule_target_instances", "instances", "Instances wanted, spare included; absent while a source of the rule is silent.", Many.NODE, "rule", origin=_POLICY),
    row("rule_floor_instances", "instances", "Floor of the rule at this moment: min and open windows.", Many.NODE, "rule", origin=_POLICY),
    row("rule_supply_instances", "instances", "Free supply: instances of the size that are there, count, and are not in use.", Many.NODE, "rule", origin=_POLICY,
        example="migscaler_rule_in_use_instances + migscaler_rule_supply_instances - migscaler_rule_wanted_instances"),
    row("rule_unmet_instances", "instances", "Instances wanted that are missing now; while a source of the rule is silent, those missing for certain, absent where none is.", Many.NODE, "rule", origin=_POLICY, example="migscaler_rule_unmet_instances > 0"),
    row("rule_unmet_since_timestamp_seconds", "seconds", "Time since which something is missing; absent while nothing is.", Many.NODE, "rule", origin=_POLICY),
    row("rule_unmet_by_cause_instances", "instances", "Instances that stay missing after what was decided, by cause: gate (a closed gate keeps the wanted plan back), held, capacity, configuration.", Many.NODE, "rule", "cause", origin=_POLICY,
        example='sum by (cause) (migscaler_rule_unmet_by_cause_instances) > 0'),
)

DECISION: tuple[Family, ...] = (
    row("decision_timestamp_seconds", "seconds", "Time of the last decision.", origin=_POLICY),
    row("decision_outcome", "", "1 for what the last decision came to: plan, or the reason why nothing is done.", Many.NODE, "outcome", origin=_POLICY,
        example="migscaler_decision_outcome == 1"),
    row("wanted_gpu_plans", "", "GPU plans that would be carried out with every gate open.", origin=_POLICY),
    row("gate_closed", "", "1 if the gate is closed for the node as a whole.", Many.NODE, "reason", origin=_POLICY, example="migscaler_gate_closed == 1"),
    row("rule_gate_closed", "", "1 if the gate is closed for the rule.", Many.NODE, "rule", "reason", origin=_POLICY),
    row("paused", "", "1 while acting is switched off by a person.", origin=_STORE),
    row("pause_until_timestamp_seconds", "seconds", "Time at which the pause ends by itself; absent without one.", origin=_STORE),
    row("change_budget_left", "", "GPU plans that per_day still allows.", origin=_STORE),
    row("ticks_total", "ticks", "Decisions made.", origin="loop"),
    row("hold_ticks_total", "ticks", "Decisions that came to nothing being done, by reason.", Many.NODE, "reason", origin="loop",
        example="topk(3, increase(migscaler_hold_ticks_total[1h]))"),
    row("idle_verdicts_total", "verdicts", "Instances found idle, by what a plan did or would have done with them.", Many.NODE, "verdict", origin="regret book"),
    row("idle_regrets_total", "regrets", "Verdicts after which the instance got a process or allocation within the window.", Many.NODE, "verdict", "window_seconds", origin="regret book",
        example='increase(migscaler_idle_regrets_total{verdict="destroy"}[7d]) / on (instance, verdict) group_left increase(migscaler_idle_verdicts_total[7d])'),
)

DECISION_GPU: tuple[Family, ...] = (
    row("gpu_mode", "", "1 for the mode of the GPU; all 0 if it is not managed.", Many.MODE, "mode", origin="configuration",
        example='sum by (mode) (migscaler_gpu_mode)'),
    row("gpu_gate_closed", "", "1 if the gate is closed for the GPU.", Many.GATE, "reason", origin=_POLICY,
        example='max by (reason) (migscaler_gpu_gate_closed) == 1'),
    row("gpu_wanted_layout_info", "", "Layout that is wanted for the GPU; always 1.", Many.GPU, "layout", origin=_POLICY),
    row("gpu_layout_as_wanted", "", "1 if the GPU has the layout that is wanted for it.", Many.GPU, origin=_POLICY),
    row("gpu_holds", "", "Holds by persons on the GPU or one of its instances.", Many.GPU, origin=_STORE),
    row("gpu_hold_until_timestamp_seconds", "seconds", "Time at which the last of the GPU's holds ends; absent if one of them has no end.", Many.GPU, origin=_STORE),
    row("gpu_protected", "", "1 if the configuration keeps the GPU as it is, with a reason.", Many.GPU, origin="configuration"),
    row("gpu_protected_until_timestamp_seconds", "seconds", "Time at which that protection lapses; absent without end.", Many.GPU, origin="configuration"),
    row("gpu_rest_until_timestamp_seconds", "seconds", "Time until which the GPU rests after a change; absent if it does not.", Many.GPU, origin=_STORE),
    row("gpu_flapping", "", "1 if the last change went against the one before within an hour.", Many.GPU, origin=_STORE),
    row("gpu_reversals", "", "Changes in a row against the direction of the one before.", Many.GPU, origin=_STORE),
    row("gpu_consecutive_failures", "", "Failed plans in a row.", Many.GPU, origin=_STORE),
    row("gpu_breaker_open", "", "1 while the GPU is left alone after failures.", Many.GPU, origin=_STORE, example="migscaler_gpu_breaker_open == 1"),
    row("gpu_breaker_open_until_timestamp_seconds", "seconds", "Time at which one more try is made; absent while the breaker is closed.", Many.GPU, origin=_STORE),
    row("gpu_fenced_since_timestamp_seconds", "seconds", "Time since which the scheduler may not hand out the GPU's instances; absent without fence.", Many.GPU, origin=_ACTED),
    row("gpu_usable_instances_lost", "", "Instances that could be used before a plan and cannot now.", Many.GPU, origin=_ACTED, example="migscaler_gpu_usable_instances_lost > 0"),
    row("gpu_restore_missing_instances", "", "Usable instances of the layout last wanted that are missing since a reboot, a reload of the driver or an emptied GPU; absent where nothing was to be restored since the start.", Many.GPU, origin=_ACTED, example="migscaler_gpu_restore_missing_instances > 0"),
)

ACTING: tuple[Family, ...] = (
    row("plans_total", "plans", "Plans begun, by direction.", Many.NODE, "direction", origin=_ACTED),
    row("gpu_plans_total", "plans", "GPU plans ended, by direction.", Many.NODE, "direction", origin=_ACTED),
    row("gpu_plan_failures_total", "plans", "GPU plans abandoned or failed, by reason.", Many.NODE, "reason", origin=_ACTED),
    row("steps_total", "steps", "NVML calls that changed a GPU, by kind.", Many.NODE, "kind", origin=_ACTED),
    row("step_failures_total", "steps", "NVML calls that should have changed a GPU and did not, by kind and reason.", Many.NODE, "kind", "reason", origin=_ACTED),
    row("rollbacks_total", "rollbacks", "GPU plans of which something was put back.", origin=_ACTED),
    row("plan_duration_seconds", "seconds", "Duration of deciding, planning included.", kind=Kind.HISTOGRAM, origin=_ACTED),
    row("gpu_plan_duration_seconds", "seconds", "Duration of GPU plans.", kind=Kind.HISTOGRAM, origin=_ACTED),
    row("step_duration_seconds", "seconds", "Duration of steps, by kind.", Many.NODE, "kind", kind=Kind.HISTOGRAM, origin=_ACTED),
    row("settle_duration_seconds", "seconds", "Duration of settling a plan found open at start.", kind=Kind.HISTOGRAM, origin=_ACTED),
    row("restore_duration_seconds", "seconds", "Duration of restoring layouts after a boot.", kind=Kind.HISTOGRAM, origin=_ACTED),
)
