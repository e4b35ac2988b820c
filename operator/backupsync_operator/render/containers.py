"""Our container in a pod, and the volumes it needs: what the template leaves open is filled in here."""

from typing import Any, Final

from backupsync import termination
from backupsync.kube import names
from backupsync.lifecycle.types import Role
from backupsync_operator.render.context import JobContext
from backupsync_operator.render.objects import wire_port

USER: Final = 65532
"""uid and gid of the images' user (the nonroot user of distroless images)."""
_KEY, _SCRATCH, _TMP, _CHECKPOINT = (
    "backupsync-key",
    "backupsync-scratch",
    "backupsync-tmp",
    "backupsync-checkpoint",
)
OUR_VOLUMES = (_KEY, _SCRATCH, _TMP, _CHECKPOINT)


def complete(
    context: JobContext,
    role: Role,
    container: dict[str, Any],
    pod_spec: dict[str, Any],
    variables: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the user's `container` made into a replica of `role`; `pod_spec` is the pod it stands in."""
    image = context.images.worker if role == "worker" else context.images.aggregator
    made = {
        "command": ["python3", "-m", f"backupsync_{role}"],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **container,
    }
    if "args" in container and "command" not in container:
        del made["command"]  # arguments of the image's own entry point
    if not container.get("image"):
        made["image"] = image
        made.setdefault("imagePullPolicy", context.pull_policy)
    for key in ("restartPolicy", "restartPolicyRules"):
        made.pop(key, None)
    if path := container.get("terminationMessagePath"):
        variables = [*variables, {"name": termination.VARIABLE, "value": path}]
    own = [v for v in container.get("env") or () if not str(v.get("name")).startswith("BACKUPSYNC_")]
    made["env"] = [*variables, *own]
    made["ports"] = _ports(context, role, container.get("ports") or [])
    made["volumeMounts"] = _mounts(context, role, container.get("volumeMounts") or [])
    made["securityContext"] = _security(container.get("securityContext") or {}, pod_spec)
    if role == "worker" and any(_holds_program(m) for m in container.get("volumeMounts") or ()):
        made.setdefault("workingDir", names.PROGRAM_DIRECTORY)
    if role == "aggregator":
        for name, probe in _probes().items():
            made.setdefault(name, probe)
    return made


def volumes(context: JobContext, role: Role, pod_spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the pod's volumes: the template's, and ours in the place of any of their names."""
    kept = [v for v in pod_spec.get("volumes") or () if v.get("name") not in OUR_VOLUMES]
    secret = {"secretName": names.secret_name(context.name), "defaultMode": 0o440}
    made: list[dict[str, Any]] = [
        {"name": _KEY, "secret": secret},
        {"name": _SCRATCH, "emptyDir": {}},
    ]
    mounted = next(c for c in pod_spec["containers"] if c.get("name") == role)["volumeMounts"]
    if any(m.get("name") == _TMP for m in mounted):
        made.append({"name": _TMP, "emptyDir": {}})
    if role == "aggregator" and context.place.kind == "Claim":
        claim = {"claimName": names.claim_name(context.name)}
        made.append({"name": _CHECKPOINT, "persistentVolumeClaim": claim})
    elif role == "aggregator" and context.place.kind == "Scratch":
        made.append({"name": _CHECKPOINT, "emptyDir": {}})
    return [*kept, *made]


def _mounts(context: JobContext, role: Role, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    ours: list[dict[str, Any]] = [
        {"name": _KEY, "mountPath": names.KEY_DIRECTORY, "readOnly": True},
        {"name": _SCRATCH, "mountPath": names.SCRATCH_DIRECTORY},
    ]
    if role == "aggregator" and context.place.kind != "Template":
        ours.append({"name": _CHECKPOINT, "mountPath": names.CHECKPOINT_DIRECTORY})
    places = {m["mountPath"] for m in ours}
    kept = [m for m in given if _path(m) not in places and m.get("name") not in OUR_VOLUMES]
    if not any(_path(m) == "/tmp" for m in kept):  # noqa: S108  a mount point
        ours.append({"name": _TMP, "mountPath": "/tmp"})  # noqa: S108
    return [*kept, *ours]


def _holds_program(mount: dict[str, Any]) -> bool:
    """Whether the program is mounted here: then it is looked for here, whatever the image says."""
    return f"{_path(mount)}/".startswith(f"{names.PROGRAM_DIRECTORY}/")


def _path(mount: dict[str, Any]) -> str:
    return str(mount.get("mountPath")).rstrip("/")


def _ports(context: JobContext, role: Role, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
    wanted = {"metrics": names.METRICS_PORT}
    if role == "aggregator":
        wanted = {"wire": wire_port(context), "http": names.HTTP_PORT}
    kept = [p for p in given if p.get("name") not in wanted]
    made = [{"name": name, "containerPort": port, "protocol": "TCP"} for name, port in wanted.items()]
    return [*kept, *made]


def _security(given: dict[str, Any], pod_spec: dict[str, Any]) -> dict[str, Any]:
    """What Pod Security's `restricted` asks for, wherever neither container nor pod says otherwise."""
    pod = pod_spec.get("securityContext") or {}
    defaults: dict[str, Any] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    if not given.get("privileged"):  # the API refuses both together
        defaults["allowPrivilegeEscalation"] = False
    if {**pod, **given}.get("runAsUser") == 0:
        del defaults["runAsNonRoot"]
    return {**{key: value for key, value in defaults.items() if key not in pod}, **given}


def _probes() -> dict[str, dict[str, Any]]:
    ask: dict[str, Any] = {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 5}
    return {
        "startupProbe": {**ask, "periodSeconds": 2, "failureThreshold": 300},
        "readinessProbe": {**ask, "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**ask, "periodSeconds": 10, "failureThreshold": 6},
    }
