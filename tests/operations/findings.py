"""What tests ask of findings."""


def by_name(findings):
    """Return findings by their names; of several of one name the worst."""
    order = ("skipped", "ok", "warning", "fault")
    return {one.name: one for one in sorted(findings, key=lambda one: order.index(one.status))}


def statuses(findings):
    """Return the status of each name."""
    return {name: one.status for name, one in by_name(findings).items()}


def only(findings):
    """Return the one finding that there is."""
    (finding,) = findings
    return finding
