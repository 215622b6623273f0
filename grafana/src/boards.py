"""The dashboards that are shipped, as files."""

from grafana.src.fleet import fleet
from grafana.src.node import node
from grafana.src.policy import policy
from grafana.src.shell import encode


def texts() -> dict[str, str]:
    """Return the JSON text by file name."""
    return {
        "fleet.json": encode(fleet()),
        "node.json": encode(node()),
        "policy.json": encode(policy()),
    }
