"""How the part of a plan between fence and unfence can end, and how that is said."""

from dataclasses import dataclass

from migscaler.control.put_back import PutBack
from migscaler.model.layout import Layout
from migscaler.model.plan import OutcomeKind, OutcomeReason


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How the part between fence and unfence ended."""

    kind: OutcomeKind
    reason: OutcomeReason
    explanation: str
    layout: Layout | None
    rolled_back: bool = False
    counts_as_failure: bool = False
    closed: bool = True


def abandoned(reason: OutcomeReason, explanation: str, layout: Layout) -> End:
    """Return the end of a plan that was never begun."""
    return End(kind=OutcomeKind.ABANDONED, reason=reason, explanation=explanation, layout=layout)


def lost_text(back: PutBack) -> str:
    """Say what is missing, and what stood in the way."""
    lost = [f"{count} x {profile} fewer than promised" for profile, count in back.lost]
    unmade = [f"{spec} could not be made again" for spec in back.unmade]
    kept = [f"{spec} stays in use" for spec in back.kept]
    return f"could not be put back whole: {', '.join((*lost, *unmade, *kept))}"
