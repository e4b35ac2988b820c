"""Which tests this environment can run: those of the cluster's parts need its extras."""

from importlib.util import find_spec

# The lowest versions of the dependencies are tried without the Kubernetes client, which wants newer ones.
EXTRAS = {"operator": "kopf", "cluster": "kubernetes"}
MISSING = [folder for folder, module in EXTRAS.items() if find_spec(module) is None]
collect_ignore = MISSING


def pytest_report_header() -> list[str]:
    """Say what is left out: silence would read as a pass."""
    return [f"left out, as its extra is not installed: tests/{folder}" for folder in MISSING]
