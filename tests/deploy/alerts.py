"""Writes the alerts of deploy/observability as the PrometheusRule that the operator takes.

`python tests/deploy/alerts.py` after a change there; a test says when that was forgotten.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import indent

__all__ = ["ALERTS", "RULE", "rule_of"]

DEPLOY = Path(__file__).parents[2] / "deploy"
ALERTS = DEPLOY / "observability" / "alerts.yml"
RULE = DEPLOY / "kubernetes" / "components" / "observed" / "prometheusrule.yaml"

HEAD = """\
# Written by tests/deploy/alerts.py from deploy/observability/alerts.yml: change it there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: infold
  labels:
    app.kubernetes.io/name: infold
spec:
"""


def rule_of(alerts: str) -> str:
    """The same groups as a resource."""
    return HEAD + indent(alerts, "  ")


if __name__ == "__main__":
    RULE.write_text(rule_of(ALERTS.read_text()))
