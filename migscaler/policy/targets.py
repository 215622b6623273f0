"""How many instances of each rule are wanted, and how much of that may be acted on now.

Counts of the planner are instances beyond those in use. Floors and spare are configuration and
don't wait for `raise_after`; what sources ask for does. What missing data hides never makes us
create it again.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from migscaler.model.decision import DecisionInput, RuleHistory
from migscaler.model.policy import Policy, Rule
from migscaler.planner.problem import Tier, Want
from migscaler.policy import pace
from migscaler.policy.demand import RuleDemand, demand_of
from migscaler.policy.supply import RuleSupply, Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Instances beyond those in use, each including the one before."""

    floor: int
    wanted: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleTarget:
    """One rule's target.

    `wanted` and `target` count all instances, in use included; `target` adds spare. `raised` and
    `kept` are wanted as pace sees it (kept None: not known for long enough, so all). `open_needs`
    is what is missing regardless of pace, `paced_needs` what may be acted on. `hard_kept` are idle
    instances that may not go while a source is silent or its number unsure; `no_create` forbids
    making any.
    """

    rule: Rule
    supply: RuleSupply
    demand: RuleDemand
    floor: int
    wanted: int
    target: int
    raised: int
    kept: int | None
    open_needs: Needs
    paced_needs: Needs
    hard_kept: int
    no_create: bool
    history: RuleHistory

    @property
    def missing(self) -> int:
        """Return the wanted instances that are not there."""
        return max(0, self.open_needs.wanted - self.supply.free)


def targets_of(inp: DecisionInput, found: Survey) -> tuple[RuleTarget, ...]:
    """Return the target of every rule, in the rules' order."""
    histories = {history.rule: history for history in inp.history.rules}
    open_windows = {state.window for state in inp.windows if state.open}
    return tuple(
        _target(
            rule,
            inp,
            found,
            histories.get(rule.name, RuleHistory(rule=rule.name)),
            open_windows,
        )
        for rule in inp.policy.rules
    )


def tiers_of(targets: tuple[RuleTarget, ...], *, paced: bool) -> tuple[Tier, ...]:
    """Return what the planner is asked for: all floors, each rule's wanted, all spare."""
    needs = [(one.rule, one.paced_needs if paced else one.open_needs) for one in targets]
    return (
        Tier(name="floor", wants=tuple(_want(rule, n.floor) for rule, n in needs)),
        *(
            Tier(name=f"wanted:{rule.name}", wants=(_want(rule, n.wanted - n.floor),))
            for rule, n in needs
        ),
        Tier(name="spare", wants=tuple(_want(rule, n.target - n.wanted) for rule, n in needs)),
    )


def raise_after(rule: Rule, policy: Policy) -> timedelta:
    """Return how long a target must be higher before anything is created for it."""
    return policy.pace.raise_after if rule.raise_after is None else rule.raise_after


def lower_after(rule: Rule, policy: Policy) -> timedelta:
    """Return how long a target must be lower before anything of it is given up."""
    return policy.pace.lower_after if rule.lower_after is None else rule.lower_after


def _want(rule: Rule, count: int) -> Want:
    """Return one line of a tier."""
    return Want(key=rule.name, count=count, weight=rule.weight)


def _target(
    rule: Rule,
    inp: DecisionInput,
    found: Survey,
    before: RuleHistory,
    open_windows: set[str],
) -> RuleTarget:
    """Return one rule's target."""
    supply = found.supply[rule.name]
    demand = demand_of(rule, inp, found)
    floor = max(
        [rule.minimum, *(line.count for line in rule.at_least if line.window in open_windows)]
    )
    # Without any source, or with a total that lags behind, at least what is in use is wanted.
    wanted = max(floor, _limited(rule, max(demand.known or 0, supply.in_use)))
    after_raise, after_lower = raise_after(rule, inp.policy), lower_after(rule, inp.policy)
    doubt = _doubt(rule, demand, wanted, before.last_known_target)
    samples = pace.recorded(
        before.samples, wanted, inp.now_monotonic, max(after_raise, after_lower), doubt
    )
    raised = max(floor, pace.raised(samples, inp.now_monotonic, after_raise))
    kept = pace.kept(samples, inp.now_monotonic, after_lower)
    is_unknown = bool(demand.unknown)
    history = replace(
        before,
        samples=samples,
        last_known_target=before.last_known_target if is_unknown else wanted,
    )
    made = RuleTarget(
        rule=rule,
        supply=supply,
        demand=demand,
        floor=floor,
        wanted=wanted,
        target=_with_spare(rule, wanted),
        raised=raised,
        kept=kept,
        open_needs=_needs(rule, supply, demand, floor, wanted, None),
        paced_needs=_needs(rule, supply, demand, floor, raised, (kept,)),
        hard_kept=max(
            _hard_kept(supply, history) if is_unknown else 0,
            _perhaps_waited_for(rule, supply, demand),
        ),
        no_create=is_unknown and demand.known is None,
        history=history,
    )
    # While a source is silent nobody knows that nothing is missing any more.
    kept_since = before.unmet_since if is_unknown else None
    since = (before.unmet_since or inp.now) if made.missing else kept_since
    return replace(made, history=replace(history, unmet_since=since))


def _doubt(rule: Rule, demand: RuleDemand, wanted: int, last_known: int | None) -> int | None:
    """Return how many more than `wanted` may be wanted, None if nobody knows.

    A silent source may go on wanting what it did; so its silence is no time of a lower target.
    """
    if demand.unknown and last_known is None:
        return None
    most = max(last_known or 0 if demand.unknown else 0, demand.most or 0)
    return max(0, _limited(rule, most) - wanted)


def _limited(rule: Rule, count: int) -> int:
    """Return a count within the rule's maximum."""
    return count if rule.maximum is None else min(count, rule.maximum)


def _with_spare(rule: Rule, wanted: int) -> int:
    """Return wanted with spare on top, as far as the maximum allows."""
    return max(wanted, _limited(rule, wanted + rule.spare))


def _needs(
    rule: Rule,
    supply: RuleSupply,
    demand: RuleDemand,
    floor: int,
    wanted: int,
    retained: tuple[int | None] | None,
) -> Needs:
    """Return the instances needed beyond those in use.

    Jobs that wait justify creating whatever else may be there unseen; totals, floors and spare
    don't. But what is free now stays needed up to the same counts, unseen instances or not.
    `retained` is the count that pace keeps, in a tuple; (None,) for everything, None when pace is
    left out of it.
    """
    present, in_use, free = supply.present, supply.in_use, supply.free
    keep = wanted if retained is None else retained[0]
    room = _limited(rule, 10**6) - present
    need_floor = max(0, floor - present, min(free, floor - in_use))
    asked = min(min(demand.waiting or 0, wanted) - in_use, room)
    counted = min(max(demand.total or 0, floor), wanted) - present
    held = free if keep is None else min(free, keep - in_use)
    need_wanted = max(need_floor, asked, counted, held)
    spare = 0 if demand.unknown else _with_spare(rule, wanted) - present
    spare_held = free if keep is None else min(free, _with_spare(rule, keep) - in_use)
    return Needs(floor=need_floor, wanted=need_wanted, target=max(need_wanted, spare, spare_held))


def _hard_kept(supply: RuleSupply, history: RuleHistory) -> int:
    """Return the idle instances that may not go while a source is silent.

    Free instances up to the last known target or those in use; all of them if no target was ever
    known.
    """
    if history.last_known_target is None:
        return supply.idle
    floor = min(supply.free, max(history.last_known_target, supply.in_use))
    return max(0, floor - supply.settling)


def _perhaps_waited_for(rule: Rule, supply: RuleSupply, demand: RuleDemand) -> int:
    """Return the idle instances that may not go since waiting jobs may need them on top.

    That is where nobody looked at what was in use when their number was true.
    """
    if demand.most is None or demand.most == demand.waiting:
        return 0
    beyond = _limited(rule, demand.most) - supply.in_use
    return max(0, min(supply.free, beyond) - supply.settling)
