"""What the panels ask: selectors with the dashboards' variables, and queries."""

from dataclasses import dataclass

_NODE = 'cluster=~"$cluster", job=~"$job", instance=~"$node"'
_GPU = 'gpu=~"$gpu"'
_PROFILE = 'profile=~"$profile"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One query of a panel; the legend is Prometheus' label template."""

    expr: str
    legend: str = ""


def query(expr: str, legend: str = "") -> Query:
    """Return a query on one line, so that the JSON shows it as Grafana does."""
    return Query(expr=" ".join(expr.split()), legend=legend)


def on_node(family: str, *matchers: str) -> str:
    """Return the selector of a family (name without prefix) on the chosen nodes."""
    return f"migscaler_{family}{{{', '.join((_NODE, *matchers))}}}"


def on_gpu(family: str, *matchers: str) -> str:
    """Return the selector of a family on the chosen GPUs of the chosen nodes."""
    return on_node(family, _GPU, *matchers)


def of_profile(family: str, *matchers: str) -> str:
    """Return the selector of a family for the chosen profiles on the chosen nodes."""
    return on_node(family, _PROFILE, *matchers)


def on_instance(family: str, *matchers: str) -> str:
    """Return the selector of a family for instances of the chosen GPUs and profiles."""
    return on_node(family, _GPU, _PROFILE, *matchers)


def by_size(value: str) -> str:
    """Return a family of rules summed by the size that each rule speaks of."""
    info = on_node("rule_info")
    return f"sum by (size) ({on_node(value)} * on (job, instance, rule) group_left (size) {info})"


def named_gpu(expr: str) -> str:
    """Return the expression with `gpu` turned from an index into words, as a row's name."""
    return f'label_replace({expr}, "gpu", "GPU $1", "gpu", "(.*)")'


def per_hour(family: str, *by: str) -> str:
    """Return how often a counter rises in an hour, at the pace of the last moments."""
    rate = f"rate({on_node(family)}[$__rate_interval])"
    return f"3600 * sum by ({', '.join(by)}) ({rate})" if by else f"3600 * sum ({rate})"


def quantile(share: float, histogram: str, *by: str) -> str:
    """Return a quantile of a histogram family, over the nodes chosen."""
    labels = ", ".join(("le", *by))
    rate = f"rate({on_node(histogram + '_bucket')}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({labels}) ({rate}))"
