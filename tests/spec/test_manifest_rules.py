"""Every rule of the manifest: what it refuses, in which words."""

import pytest

from backupsync.spec import parse_manifest

A, T, P = "spec.aggregation", "spec.training", "spec.program"
RULES = [
    # identity
    ({"apiVersion": "v1"}, "apiVersion = 'v1': must be 'backupsync.dev/v1alpha1'"),
    ({"kind": "Job"}, "kind = 'Job': must be 'BackupSyncJob'"),
    (
        {"metadata.name": "Digits"},
        "metadata.name = 'Digits': does not fit; "
        "Name of the job: lower-case letters, digits and dashes, at most 45.",
    ),
    ({"metadata.name": "-a"}, "metadata.name = '-a': does not fit; "),
    ({"metadata.name": "a" * 46}, "must have at most 45 characters"),
    ({"metadata.labels": {"a": 1}}, "metadata.labels.a = 1: must be a string"),
    # program
    ({f"{P}.script": "train.py"}, f"{P}: set exactly one of entrypoint (module:Class) and script"),
    ({P: {}}, f"{P}: set exactly one of entrypoint (module:Class) and script"),
    ({f"{P}.entrypoint": "digits"}, f"{P}.entrypoint = 'digits': does not fit; `module:Class`"),
    ({f"{P}.args": [1]}, f"{P}.args: must be a mapping"),
    # aggregation
    ({f"{A}.mode": "sync"}, f"{A}.mode = 'sync': must be 'BackupSync', 'Sync' or 'Async'"),
    ({f"{A}.workers": 0}, f"{A}.workers = 0: must be greater than or equal to 1"),
    ({f"{A}.workers": 1001}, f"{A}.workers = 1001: must be less than or equal to 1000"),
    ({f"{A}.backupWorkers": -1}, f"{A}.backupWorkers = -1: must be greater than or equal to 0"),
    (
        {f"{A}.mode": "Sync"},
        f"{A}: mode Sync takes no backup workers: "
        "set backupWorkers to 0, not 2, or mode to BackupSync",
    ),
    ({f"{A}.mode": "Async"}, f"{A}: mode Async takes no backup workers"),
    (
        {f"{A}.maxStaleness": 3},
        f"{A}: maxStaleness is for mode Async; mode BackupSync never applies a stale gradient",
    ),
    (
        {f"{A}.belowQuorum": {"policy": "Shrink", "minimum": 5}},
        f"{A}: belowQuorum.minimum 5 must not exceed workers 4",
    ),
    (
        {f"{A}.workers": 900, f"{A}.backupWorkers": 200},
        f"{A}: workers 900 and backupWorkers 200 are 1100 together: a job runs at most 1000",
    ),
    ({f"{A}.belowQuorum": {"policy": "Stop"}}, "belowQuorum.policy = 'Stop': must be 'Wait', 'Shrink' or"),
    ({f"{A}.droppedBatches": "Keep"}, "droppedBatches = 'Keep': must be 'Discard' or 'Requeue'"),
    ({f"{A}.nonFiniteLimit": 0}, "nonFiniteLimit = 0: must be greater than or equal to 1"),
    (
        {f"{A}.wire": {"timeoutSeconds": 1.5}},
        f"{A}.wire: timeoutSeconds 1.5 must be at least twice heartbeatSeconds 1, "
        "or a single late heartbeat ends a healthy worker",
    ),
    (
        {f"{A}.wire": {"stallSeconds": 5}},
        f"{A}.wire: stallSeconds 5 must be at least timeoutSeconds 10: "
        "a worker that computes says less than one that lives",
    ),
    ({f"{A}.wire": {"chunkBytes": 5000}}, "wire.chunkBytes = 5000: must be a multiple of 64"),
    ({f"{A}.wire": {"chunkBytes": 64}}, "wire.chunkBytes = 64: must be greater than or equal to 4096"),
    ({f"{A}.wire": {"dtype": "float16"}}, "wire.dtype = 'float16': must be 'float32' or 'bfloat16'"),
    ({f"{A}.wire": {"port": 65536}}, "wire.port = 65536: must be less than or equal to 65535"),
    # training
    (
        {f"{T}.epochs": 3},
        f"{T}: set exactly one of iterations, examples, epochs (given: iterations: 400, epochs: 3)",
    ),
    ({f"{T}.accumulate": 5}, f"{T}: accumulate 5 must divide batchSize 32"),
    ({f"{T}.batchSize": 0}, f"{T}.batchSize = 0: must be greater than or equal to 1"),
    ({f"{T}.seed": -1}, f"{T}.seed = -1: must be greater than or equal to 0"),
    ({f"{T}.optimizer": {"lr": 0}}, f"{T}.optimizer.lr = 0: must be greater than 0"),
    (
        {f"{T}.optimizer": {"name": "SGD"}},
        f"{T}.optimizer.lr: is required: Learning rate at the reference number of workers.",
    ),
    (
        {f"{T}.optimizer": {"lr": 1, "groups": [{"match": []}]}},
        f"{T}.optimizer.groups[0].match: must have at least 1 item",
    ),
    ({f"{T}.schedule": {"T_max": 5}}, f"{T}.schedule.name: is required"),
    ({f"{T}.warmup": {"examples": 5, "startFactor": 1}}, "warmup.startFactor = 1: must be less than 1"),
    ({f"{T}.scaling": "linear"}, f"{T}.scaling = 'linear': must be 'None', 'Linear' or 'Sqrt'"),
    ({f"{T}.clipNorm": 0}, f"{T}.clipNorm = 0: must be greater than 0"),
    ({f"{T}.emaDecay": 1}, f"{T}.emaDecay = 1: must be less than 1"),
    ({f"{T}.device": "gpu"}, f"{T}.device = 'gpu': does not fit; auto, cpu, cuda or cuda:INDEX."),
    ({f"{T}.autocast": "fp16"}, "autocast = 'fp16': must be 'None', 'bfloat16' or 'float16'"),
    # the rest
    ({"spec.checkpoint": {"keep": 0}}, "spec.checkpoint.keep = 0: must be greater than or equal to 1"),
    ({"spec.checkpoint": {"path": ""}}, "spec.checkpoint.path = '': must have at least 1 character"),
    ({"spec.stragglers": {"mode": "Enforce"}}, "spec.stragglers.mode = 'Enforce': must be 'Observe'"),
    ({"spec.runPolicy": {"backoffLimit": -1}}, "spec.runPolicy.backoffLimit = -1: must be greater than or"),
    ({"spec.runPolicy": {"cleanPodPolicy": "Some"}}, "cleanPodPolicy = 'Some': must be 'None', 'Running' or"),
    ({"spec.security": {"encryption": "Tls"}}, "spec.security.encryption = 'Tls': must be 'None' or 'Curve'"),
    ({"spec.runPolicy": {"nodeLostGraceSeconds": 0}}, "nodeLostGraceSeconds = 0: must be greater than 0"),
    ({"spec.runPolicy": {"pendingDeadlineSeconds": 0}}, "pendingDeadlineSeconds = 0: must be greater than 0"),
    ({"spec.worker": {"template": "pod"}}, "spec.worker.template = 'pod': must be a mapping"),
    (
        {"spec.worker": {"template": {"containers": []}}},
        "spec.worker.template: a pod template holds metadata and spec, not containers",
    ),
    (
        {"spec.aggregator": {"template": {"spec": []}}},
        "spec.aggregator.template: spec of a pod template must be a mapping",
    ),
    (
        {"spec.checkpoint": {"volumeClaimTemplate": {"storage": "1Gi"}}},
        "a claim template holds metadata and spec, not storage",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"), RULES, ids=[f"{i}-{next(iter(r[0]))}" for i, r in enumerate(RULES)]
)
def test_a_broken_rule_names_field_value_and_remedy(changes, message, problems):
    found = problems(changes)
    assert len(found) == 1, found
    assert message in found[0]


def test_the_manifest_they_break_is_valid(valid):
    job = parse_manifest(valid)
    assert job.spec.aggregation.total == 6
    assert job.spec.reference_workers == 4


@pytest.mark.parametrize(
    "path",
    [
        "apiVersion", "kind", "metadata", "metadata.name", "spec", "spec.program", "spec.aggregation",
        "spec.aggregation.workers", "spec.training", "spec.training.batchSize", "spec.training.optimizer",
    ],
)  # fmt: skip
def test_a_missing_field_is_named_with_what_it_is(path, problems, absent):
    (found,) = problems({path: absent})
    assert found.startswith(f"{path}: is required: ")


def test_a_run_without_an_end_is_refused(problems, absent):
    assert problems({"spec.training.iterations": absent}) == [
        "spec.training: set exactly one of iterations, examples, epochs (given: none)"
    ]


@pytest.mark.parametrize(
    ("path", "value", "hint"),
    [
        ("spec.aggregation.backupworkers", 2, "did you mean backupWorkers?"),
        ("spec.aggregation.backup_worker", 2, "did you mean backupWorkers?"),
        ("spec.training.batchsize", 2, "did you mean batchSize?"),
        ("spec.training.learningRate", 2, "valid here: iterations, examples, epochs, batchSize"),
        ("spec.aggregation.wire.dtypes", 2, "did you mean dtype?"),
        ("spec.agregation", {}, "did you mean aggregation?"),
        ("metadata.owner", "x", "valid here: name, namespace, labels, annotations"),
        ("state", {}, "valid here: apiVersion, kind, metadata, spec"),
    ],
)
def test_an_unknown_field_is_refused_with_a_suggestion(path, value, hint, problems):
    (found,) = problems({path: value})
    assert found.startswith(path)
    assert "is not a field; " + hint in found


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.aggregation.workers", True),
        ("spec.aggregation.workers", "4"),
        ("spec.aggregation.workers", 4.5),
        ("spec.aggregation.workers", None),
        ("spec.aggregation.workers", [4]),
        ("spec.runPolicy.suspend", "yes"),
        ("spec.runPolicy.suspend", 1),
        ("spec.training.clipNorm", "1"),
        ("spec.training.clipNorm", True),
        ("spec.checkpoint.path", 5),
        ("spec.program.entrypoint", 5),
        ("spec.aggregation", 5),
        ("metadata", []),
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_never_converted(path, value, problems):
    (found,) = problems({path: value})
    assert found.startswith(path)


def test_a_whole_number_is_taken_where_a_fraction_may_stand(valid):
    assert parse_manifest(valid.replace("lr: 0.1", "lr: 1")).spec.training.optimizer.lr == 1.0


def test_keywords_of_optimizer_groups_and_schedule_pass_through(valid):
    text = valid.replace(
        "lr: 0.1",
        "lr: 1e-3\n      weight_decay: 1e-2\n      betas: [0.9, 0.95]\n"
        "      groups: [{match: ['*.bias'], weight_decay: 0}]",
    )
    optimizer = parse_manifest(text).spec.training.optimizer
    assert optimizer.lr == 0.001
    assert optimizer.keywords == {"weight_decay": 0.01, "betas": [0.9, 0.95]}
    assert optimizer.groups[0].overrides == {"weight_decay": 0}
