"""What is left of a failed test: describe, events, logs and the objects themselves, in out/e2e/NAME/."""

from pathlib import Path

from support.api import Api, name_of

RESOURCES = "backupsyncjobs,pods,services,persistentvolumeclaims,poddisruptionbudgets,configmaps"


def collect(api: Api, namespaces: list[str], folder: Path) -> None:
    """Write down what the cluster says of these namespaces. Never raises: the test's failure is the news."""
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder / "nodes.txt", api.kubectl("get", "nodes", "-o", "wide", check=False))
    for namespace in namespaces:
        _namespace(api, namespace, folder)


def _namespace(api: Api, namespace: str, folder: Path) -> None:
    def said(*arguments: str) -> str:
        return api.kubectl("--namespace", namespace, *arguments, check=False)

    _keep(folder / f"{namespace}-objects.txt", said("get", RESOURCES, "-o", "wide"))
    _keep(folder / f"{namespace}-describe.txt", said("describe", RESOURCES))
    _keep(folder / f"{namespace}-events.txt", said("get", "events", "--sort-by=.lastTimestamp"))
    _keep(folder / f"{namespace}-jobs.yaml", said("get", "backupsyncjobs", "-o", "yaml"))
    try:
        pods = [name_of(pod) for pod in api.list("pod", namespace)]
    except Exception as error:  # whatever it is, the rest is worth having
        _keep(folder / f"{namespace}-pods.txt", str(error))
        return
    for pod in pods:
        _keep(folder / f"{pod}.log", said("logs", pod, "--all-containers", "--prefix", "--tail=2000"))
        before = said("logs", pod, "--all-containers", "--previous", "--tail=2000")
        if "not found" not in before:
            _keep(folder / f"{pod}-previous.log", before)


def _keep(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="replace")
