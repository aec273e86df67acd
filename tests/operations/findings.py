"""Helpers for assertions on findings."""


def by_name(findings):
    """Return findings by name; of several with one name, the worst."""
    order = ("skipped", "ok", "warning", "fault")
    return {one.name: one for one in sorted(findings, key=lambda one: order.index(one.status))}


def statuses(findings):
    """Return the status of each name."""
    return {name: one.status for name, one in by_name(findings).items()}


def only(findings):
    """Return the only finding."""
    (finding,) = findings
    return finding
