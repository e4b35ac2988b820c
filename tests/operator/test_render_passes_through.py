"""Whatever a template holds that is not ours comes out as it went in."""

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from rendering import container, render

from backupsync.lifecycle.types import ReplicaId

KEYS = st.sampled_from(
    ["nodeSelector", "affinity", "tolerations", "priorityClassName", "runtimeClassName", "schedulerName",
     "schedulingGates", "hostNetwork", "dnsConfig", "hostAliases", "imagePullSecrets", "serviceAccountName",
     "topologySpreadConstraints", "resourceClaims", "shareProcessNamespace", "initContainers", "overhead",
     "activeDeadlineSeconds", "preemptionPolicy", "setHostnameAsFQDN", "hostUsers", "aFieldOfNextYear"]
)  # fmt: skip
CONTAINER_KEYS = st.sampled_from(
    ["resources2", "lifecycle", "workingDir", "envFrom", "stdin", "tty", "volumeDevices", "resizePolicy",
     "imagePullPolicy", "terminationMessagePolicy", "startupProbe", "aFieldOfNextYear"]
)  # fmt: skip
TEXT = st.text('abcXYZ$(){}"\\é\n', max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["data", "cache", "cfg"])
VOLUMES = st.lists(
    st.builds(lambda n, more: {**more, "name": n}, NAMES, st.dictionaries(TEXT, PLAIN, max_size=2)),
    max_size=3,
)
MOUNTS = st.lists(
    st.builds(
        lambda n, p: {"name": n, "mountPath": p}, NAMES, st.sampled_from(["/data", "/tmp", "/models", "/a/b"])
    ),
    max_size=3,
)
ENV = st.lists(
    st.builds(lambda n, v: {"name": n, "value": v}, st.sampled_from(["A", "B", "PATH"]), TEXT), max_size=3
)
PORTS = st.lists(
    st.builds(
        lambda n, p: {"name": n, "containerPort": p}, st.sampled_from(["debug", "x"]), st.integers(1, 9)
    ),
    max_size=2,
)


@st.composite
def containers(draw: Any, name: str) -> dict[str, Any]:
    made = draw(st.dictionaries(CONTAINER_KEYS, PLAIN, max_size=4))
    for key, values in (("env", ENV), ("ports", PORTS), ("volumeMounts", MOUNTS)):
        if draw(st.booleans()):
            made[key] = draw(values)
    if draw(st.booleans()):
        made["securityContext"] = draw(
            st.dictionaries(st.sampled_from(["runAsUser", "privileged", "capabilities"]), st.just(1))
        )
    return {**made, "name": name}


@st.composite
def templates(draw: Any, role: str) -> dict[str, Any]:
    spec = draw(st.dictionaries(KEYS, PLAIN, max_size=5))
    others = [
        draw(containers(name)) for name in draw(st.lists(st.sampled_from(["proxy", "logs"]), unique=True))
    ]
    mine = [draw(containers(role))] if draw(st.booleans()) else []
    if mine or others:
        spec["containers"] = draw(st.permutations([*mine, *others]))
    if draw(st.booleans()):
        spec["volumes"] = draw(VOLUMES)
    if draw(st.booleans()):
        spec["securityContext"] = draw(
            st.dictionaries(st.sampled_from(["fsGroup", "sysctls", "runAsUser"]), st.just(5))
        )
    return {
        "spec": spec,
        "metadata": {"labels": draw(st.dictionaries(st.sampled_from(["a", "b"]), TEXT, max_size=2))},
    }


def contains(made: Any, given: Any, path: str = "") -> None:
    """Every key of `given` is in `made` with the same value; lists keep their items, in their order."""
    if isinstance(given, dict):
        for key, value in given.items():
            assert key in made, f"{path}.{key} is gone"
            contains(made[key], value, f"{path}.{key}")
    else:
        assert made == given, path


@settings(max_examples=80, deadline=None)
@given(data=st.data(), role=st.sampled_from(["worker", "aggregator"]))
def test_what_is_not_ours_is_unchanged(data: Any, role: Any) -> None:
    template = data.draw(templates(role))
    before = copy.deepcopy(template)
    made = render(ReplicaId(role, 0, 1), {role: {"template": template}})
    assert template == before, "the manifest itself is left alone"
    spec, given_spec = made["spec"], before["spec"]
    for key, value in given_spec.items():
        if key not in ("containers", "volumes"):
            contains(spec[key], value, key)
    contains(made["metadata"]["labels"], before["metadata"]["labels"])
    theirs = given_spec.get("containers", [])
    for other in theirs:
        if other["name"] != role:
            assert container(made, other["name"]) == other, "a sidecar is not ours"
            continue
        ours = container(made, role)
        for key, value in other.items():
            if key in ("env", "ports", "volumeMounts"):
                assert [item for item in ours[key] if item in value] == value, key
            else:
                contains(ours[key], value, key)
    kept = [v for v in spec["volumes"] if not v["name"].startswith("backupsync-")]
    assert kept == given_spec.get("volumes", [])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_our_container_is_there_once_and_the_order_of_the_others_stays(data: Any) -> None:
    template = data.draw(templates("worker"))
    theirs = [c["name"] for c in template["spec"].get("containers", [])]
    names = [
        c["name"]
        for c in render(ReplicaId("worker", 0, 1), {"worker": {"template": template}})["spec"]["containers"]
    ]
    assert names.count("worker") == 1
    assert names == (theirs if "worker" in theirs else ["worker", *theirs])
