"""Whatever the node and the demand: order does not matter, pins hold, silence justifies nothing."""

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from migscaler.model.decision import Decision, DecisionInput, GpuHistory
from migscaler.model.demand import Counts, SourceStatus
from migscaler.model.gpu import GpuState, InstanceState, NodeSnapshot, PinReason
from migscaler.model.ids import RuleName, SourceName
from migscaler.model.layout import Layout
from migscaler.model.plan import Hold, Plan
from migscaler.model.policy import Mode, Pace, Rule
from migscaler.planner.cache import OptionCache
from migscaler.planner.layouts import all_layouts
from migscaler.policy.decide import decide
from migscaler.policy.supply import survey
from migscaler.policy.targets import targets_of
from tests.builders import (
    A30,
    A100,
    H100,
    MONOTONIC,
    NOW,
    decision_input,
    gpu_entry,
    gpu_state,
    instance_reading,
    instance_state,
    model,
    policy,
    reading,
    rule,
    rule_history,
    snapshot,
    uuid,
)

BOARDS = (A100, H100, A30)
LAYOUTS = {
    name: [
        str(layout)
        for layout in all_layouts(
            model(name), {p.name for p in model(name).profiles if "+" not in p.size_class}
        )
    ]
    for name in BOARDS
}
SIZES = ("1g", "2g", "3g", "4g", "7g", "1g.10gb")
CACHE = OptionCache()
PINS = (None, None, None, *PinReason)


@st.composite
def gpu_states(draw: st.DrawFn, index: int) -> GpuState:
    """Draw a GPU with any layout and any verdicts."""
    name = draw(st.sampled_from(BOARDS))
    text = draw(st.sampled_from(LAYOUTS[name]))
    pins = {}
    for word in text.split():
        pin = draw(st.sampled_from(PINS)) if word != "-" else None
        if pin is not None:
            pins[word] = pin
    excluded = draw(st.sampled_from((None, None, None, None, "lost")))
    return gpu_state(name, text, pins, index=index, excluded=excluded)


@st.composite
def sources(draw: st.DrawFn, name: str) -> SourceStatus:
    """Draw a source that may be silent."""
    wants = draw(st.dictionaries(st.sampled_from(SIZES), st.integers(0, 6), max_size=3))
    answer = reading(
        wants,
        counts=draw(st.sampled_from(Counts)),
        absent_is_zero=draw(st.booleans()),
    )
    is_known = draw(st.sampled_from((True, True, True, False)))
    return SourceStatus(
        name=SourceName(name),
        known=is_known,
        reading=answer,
        problem=None if is_known else "no answer",
        unknown_since=None if is_known else NOW - timedelta(minutes=1),
    )


@st.composite
def rules_drawn(draw: st.DrawFn) -> tuple[Rule, ...]:
    """Draw up to three rules."""
    chosen = draw(st.lists(st.sampled_from(SIZES), min_size=1, max_size=3, unique=True))
    delays = st.sampled_from((timedelta(0), timedelta(seconds=30)))
    return tuple(
        rule(
            f"rule-{size}",
            size,
            *draw(st.sampled_from(((), ("a",), ("b",), ("a", "b")))),
            minimum=draw(st.integers(0, 2)),
            maximum=draw(st.sampled_from((None, 3, 8))),
            spare=draw(st.integers(0, 2)),
            raise_after=draw(delays),
            lower_after=draw(delays),
        )
        for size in chosen
    )


@st.composite
def inputs(draw: st.DrawFn, *, gates: bool = True) -> DecisionInput:
    """Draw a whole input; without `gates` nothing but pins and sources stands in the way."""
    states = [draw(gpu_states(n)) for n in range(draw(st.integers(1, 3)))]
    rules = draw(rules_drawn())
    modes = [draw(st.sampled_from(Mode)) if gates else Mode.ENFORCE for _ in states]
    baseline = draw(st.sampled_from(((), ("1g", "1g"))))
    resting = [draw(st.booleans()) and gates for _ in states]
    histories = tuple(
        GpuHistory(gpu_uuid=uuid(n), rest_until=NOW + timedelta(minutes=1))
        for n, rests in enumerate(resting)
        if rests
    )
    past = tuple(
        rule_history(
            one.name,
            (100, draw(st.integers(0, 5))),
            (draw(st.sampled_from((60, 20))), draw(st.integers(0, 5))),
            last_known_target=draw(st.sampled_from((None, 0, 3))),
        )
        for one in rules
    )
    return decision_input(
        snapshot(*states),
        policy(
            *rules,
            gpus=tuple(gpu_entry(m, index=n, baseline=baseline) for n, m in enumerate(modes)),
            pace=Pace(gpus_at_once=draw(st.integers(1, 3)) if gates else 8),
        ),
        draw(sources("a")),
        draw(sources("b")),
        gpus=histories,
        histories=past,
    )


def destroyed(plan: Plan | Hold | None) -> set[tuple[str, str]]:
    """Return (GPU, instance) for all that a plan destroys."""
    if not isinstance(plan, Plan):
        return set()
    return {
        (one.gpu_uuid, str(spec))
        for one in plan.gpu_plans
        for spec in one.before.specs
        if spec not in one.after
    }


def after(picture: NodeSnapshot, plan: Plan) -> NodeSnapshot:
    """Return the node after the plan: what stays keeps its verdict, what is new settles."""
    layouts = {one.gpu_uuid: one.after for one in plan.gpu_plans}
    return replace(
        picture, gpus=tuple(_changed(g, layouts.get(g.uuid, g.layout)) for g in picture.gpus)
    )


def _changed(state: GpuState, layout: Layout | None) -> GpuState:
    """Return a GPU with another layout."""
    assert layout is not None
    old = {one.spec: one for one in state.instances or ()}
    instances: list[InstanceState] = []
    for number, spec in enumerate(layout.specs, start=10):
        made = instance_state(
            instance_reading(spec, gi_id=number, index=state.reading.index), PinReason.SETTLING
        )
        instances.append(old.get(spec, made))
    readings = tuple(one.reading for one in instances)
    return replace(
        state, instances=tuple(instances), reading=replace(state.reading, instances=readings)
    )


@given(inp=inputs(), data=st.data())
@settings(max_examples=60)
def test_decision_does_not_depend_on_order(inp: DecisionInput, data: st.DataObject) -> None:
    shuffled = replace(
        inp,
        snapshot=replace(inp.snapshot, gpus=tuple(data.draw(st.permutations(inp.snapshot.gpus)))),
        demand=tuple(data.draw(st.permutations(inp.demand))),
        history=replace(
            inp.history,
            rules=tuple(reversed(inp.history.rules)),
            gpus=tuple(reversed(inp.history.gpus)),
        ),
    )
    assert decide(shuffled) == decide(inp, CACHE)


@given(inp=inputs())
@settings(max_examples=120)
def test_decision_destroys_only_idle_instances(inp: DecisionInput) -> None:
    decision = decide(inp, CACHE)
    idle = {
        (state.uuid, str(one.spec))
        for state in inp.snapshot.gpus
        for one in state.instances or ()
        if one.pin is None and state.excluded is None
    }
    assert destroyed(decision.outcome) <= idle
    assert destroyed(decision.wanted) <= idle


@given(inp=inputs())
@settings(max_examples=120)
def test_decision_acts_only_where_gates_are_open(inp: DecisionInput) -> None:
    decision = decide(inp, CACHE)
    if isinstance(decision.outcome, Hold):
        return
    behind = {gate.gpu_uuid for gate in decision.gates}
    touched = {plan.gpu_uuid for plan in decision.outcome.gpu_plans}
    assert not touched & behind
    assert len(touched) <= inp.policy.pace.gpus_at_once
    assert decision.wanted is not None
    for plan in decision.outcome.gpu_plans:
        assert model_allows(inp, plan.gpu_uuid, plan.after)


def model_allows(inp: DecisionInput, gpu: str, layout: Layout) -> bool:
    """Say whether a layout is legal on a GPU of the input."""
    state = next(one for one in inp.snapshot.gpus if one.uuid == gpu)
    assert state.reading.model is not None
    return state.reading.model.violation(layout) is None


@given(inp=inputs(gates=False))
@settings(max_examples=120)
def test_decision_after_its_plan_wants_nothing_more(inp: DecisionInput) -> None:
    decision = decide(inp, CACHE)
    if isinstance(decision.outcome, Hold):
        return
    again = decide(replace(inp, snapshot=after(inp.snapshot, decision.outcome)), CACHE)
    assert isinstance(again.outcome, Hold), again.sentence
    # A silent source's rule may want more behind its gate; without any closed gate nothing is left.
    if not decision.gates:
        assert again.wanted is None, again.sentence


@given(inp=inputs(gates=False))
@settings(max_examples=120)
def test_silence_never_adds_creation_beyond_what_is_known(inp: DecisionInput) -> None:
    decision = decide(inp, CACHE)
    found = survey(inp)
    if isinstance(decision.outcome, Hold):
        return
    for target in targets_of(inp, found):
        made = sum(
            found.gpu(plan.gpu_uuid).rule_of(spec.profile) == target.rule.name
            for plan in decision.outcome.gpu_plans
            for spec in plan.after.specs
            if spec not in plan.before
        )
        if not target.demand.unknown or not made or not target.rule.sources:
            continue
        in_baseline = any(not len(plan.before) for plan in decision.outcome.gpu_plans)
        assert target.demand.known is not None or in_baseline
        lower_bound = max(target.floor, target.demand.known or 0)
        assert made <= lower_bound or in_baseline


@given(inp=inputs(gates=False))
@settings(max_examples=80)
def test_silence_never_adds_a_destroy(inp: DecisionInput) -> None:
    silent = tuple(
        replace(status, known=False, problem="no answer", unknown_since=NOW)
        for status in inp.demand
    )
    decision = decide(replace(inp, demand=silent), CACHE)
    kept = {one.rule.name for one in targets_of(inp, survey(inp)) if one.rule.sources}
    fresh = replace(inp, demand=silent, history=replace(inp.history, rules=()))
    assert not lost(fresh, decide(fresh, CACHE), kept)
    assert decision.rules == decide(replace(inp, demand=silent)).rules


def lost(inp: DecisionInput, decision: Decision, rules: set[RuleName]) -> set[tuple[str, str]]:
    """Return destroyed instances that serve one of these rules."""
    found = survey(inp)
    return {
        (one.gpu_uuid, str(spec))
        for plan in (decision.outcome, decision.wanted)
        if isinstance(plan, Plan)
        for one in plan.gpu_plans
        for spec in one.before.specs
        if spec not in one.after and found.gpu(one.gpu_uuid).rule_of(spec.profile) in rules
    }


@given(inp=inputs())
@settings(max_examples=60)
def test_hold_always_has_a_reason_in_words(inp: DecisionInput) -> None:
    decision = decide(inp, CACHE)
    assert decision.sentence.startswith(("Hold: ", "Reshape "))
    assert "\n" not in decision.sentence
    if isinstance(decision.outcome, Hold):
        assert decision.outcome.explanation
    assert inp.now_monotonic == MONOTONIC
