"""The files for containers and clusters agree with the command, the server and one another. Nothing is run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from gpt_oss_mxfp4 import cli

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("kubernetes/*/*.yaml"))
HEALTH, READY, METRICS = "/health", "/ready", "/metrics"
HTTP_PORT, METRICS_PORT = 8000, 8001
DRAIN_SECONDS = 30


@cache
def documents(path: Path) -> list[dict[str, Any]]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]


@cache
def compose() -> dict[str, Any]:
    composed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return composed


def objects(kind: str) -> dict[str, dict[str, Any]]:
    """Kubernetes objects of a kind by the file they are in."""
    found = ((path, document) for path in MANIFESTS for document in documents(path))
    return {str(path.relative_to(DEPLOY)): d for path, d in found if d.get("kind") == kind}


DEPLOYMENT = objects("Deployment")["kubernetes/cpu/deployment.yaml"]
KSERVE = next(iter(objects("InferenceService").values()))
JOB = next(iter(objects("Job").values()))
PODS = {
    "deployment": DEPLOYMENT["spec"]["template"]["spec"],
    "kserve": KSERVE["spec"]["predictor"],
    "job": JOB["spec"]["template"]["spec"],
}
SERVERS = ["deployment", "kserve"]


@cache
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each with its arguments in one line."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    split = (line.split(maxsplit=1) for line in text.splitlines() if line.strip())
    return [(name, rest) for name, rest in split]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every command line of ours that these files hold."""
    yield "Dockerfile", json.loads(arguments("CMD")[-1])
    yield "compose", compose()["services"]["serve"]["command"]
    for path, kind in (("cpu", "Deployment"), ("gpu", "Deployment")):
        deployment = objects(kind)[f"kubernetes/{path}/deployment.yaml"]
        yield path, deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    yield "kserve", KSERVE["spec"]["predictor"]["containers"][0]["args"]
    yield "job", JOB["spec"]["template"]["spec"]["containers"][0]["args"]
    patches = documents(DEPLOY / "kubernetes/gpu/kustomization.yaml")[0]["patches"]
    yield "gpu job", yaml.safe_load(patches[-1]["patch"])[0]["value"]


COMMANDS = dict(commands())
SERVE = [name for name, command in COMMANDS.items() if command[0] == "serve"]


def flags(name: str) -> dict[str, str]:
    """Arguments of a command line, a switch's value empty."""
    joined = " ".join(COMMANDS[name][1:]).replace("=", " ")
    return dict(re.findall(r"--([\w-]+)(?: ([^-\s]\S*))?", joined))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_takes_these_arguments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = pytest.importorskip(f"gpt_oss_mxfp4.cli.{COMMANDS[name][0]}")
    asked: list[object] = []

    def run(options: object) -> int:
        asked.append(options)
        return 0

    monkeypatch.setattr(verb, f"run_{COMMANDS[name][0]}", run)
    assert cli.main(COMMANDS[name]) == 0
    assert len(asked) == 1


@pytest.mark.parametrize("name", SERVE)
def test_every_server_listens_on_the_ports_that_the_rest_names(name: str) -> None:
    asked = flags(name)
    assert (asked["host"], asked["port"]) == ("0.0.0.0", str(HTTP_PORT))
    assert asked["metrics-port"] == str(METRICS_PORT)


@pytest.mark.parametrize("name", [name for name in SERVE if name != "Dockerfile"])
def test_whoever_is_reached_from_elsewhere_wants_a_key(name: str) -> None:
    assert flags(name)["api-key-file"] in ("/run/secrets/api_keys", "/secrets/api-keys")
    assert flags(name)["drain-seconds"] == str(DRAIN_SECONDS)


def test_the_server_has_these_paths() -> None:
    front = pytest.importorskip("gpt_oss_mxfp4.serving.front")
    assert HEALTH in front.HEALTH_PATHS
    assert front.READY_PATH == READY


@pytest.mark.parametrize("pod", SERVERS)
def test_probes_ask_the_servers_paths_at_its_port(pod: str) -> None:
    container = PODS[pod]["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert set(ports.values()) <= {HTTP_PORT, METRICS_PORT}
    probes = {"startupProbe": READY, "readinessProbe": READY, "livenessProbe": HEALTH}
    for probe, path in probes.items():
        asked = container[probe]["httpGet"]
        assert asked["path"] == path
        assert ports.get(asked["port"], asked["port"]) == HTTP_PORT
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600, "loading takes minutes"


@pytest.mark.parametrize("pod", SERVERS)
def test_a_pod_has_the_time_to_drain(pod: str) -> None:
    waited = PODS[pod]["containers"][0].get("lifecycle", {}).get("preStop", {}).get("exec", {})
    before = int(waited.get("command", ["sleep", "0"])[1])
    assert PODS[pod]["terminationGracePeriodSeconds"] > before + DRAIN_SECONDS
    assert compose()["services"]["serve"]["stop_grace_period"] == "45s"


@pytest.mark.parametrize("pod", PODS)
def test_a_pod_is_nobody_and_may_write_to_its_volumes_alone(pod: str) -> None:
    spec, container = PODS[pod], PODS[pod]["containers"][0]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    user = arguments("USER")[0].split(":")[0]
    assert spec["securityContext"]["runAsUser"] == int(user)
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in spec["volumes"]}
    assert {"/cache", "/tmp", "/weights"} <= set(mounted.values())
    assert "limits" in container["resources"]
    assert "memory" in container["resources"]["requests"]


def test_weights_are_read_where_the_job_puts_them() -> None:
    assert COMMANDS["job"][-1] == flags("cpu")["model"] == flags("kserve")["model"]
    assert COMMANDS["gpu job"][-1] == flags("gpu")["model"]
    for pod in SERVERS:
        claims = [v for v in PODS[pod]["volumes"] if v["name"] == "weights"]
        assert claims[0]["persistentVolumeClaim"]["readOnly"] is True


def test_the_service_leads_to_the_pods() -> None:
    service = objects("Service")["kubernetes/cpu/service.yaml"]
    labels = DEPLOYMENT["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert DEPLOYMENT["spec"]["selector"]["matchLabels"].items() <= labels.items()
    job_labels = JOB["spec"]["template"]["metadata"]["labels"]
    assert not service["spec"]["selector"].items() <= job_labels.items()
    names = {port["name"] for port in PODS["deployment"]["containers"][0]["ports"]}
    assert service["spec"]["ports"][0]["targetPort"] in names
    assert DEPLOYMENT["spec"]["replicas"] > 1


@pytest.mark.parametrize("pod", SERVERS)
def test_pods_that_take_a_nodes_first_cpus_never_share_a_node(pod: str) -> None:
    assert "threads" in flags({"deployment": "cpu"}.get(pod, pod))
    pods: Any = PODS[pod]
    kserve: Any = objects("InferenceService")["kubernetes/kserve/inference_service.yaml"]["spec"]
    owner: Any = DEPLOYMENT["spec"] if pod == "deployment" else kserve["predictor"]
    [rule] = pods["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    labels = owner["template"]["metadata"]["labels"] if pod == "deployment" else owner["labels"]
    assert rule["labelSelector"]["matchLabels"].items() <= labels.items()
    strategy = owner["strategy" if pod == "deployment" else "deploymentStrategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_pods_of_gpus_may_share_a_node() -> None:
    gpu = objects("Deployment")["kubernetes/gpu/deployment.yaml"]
    assert gpu["spec"]["template"]["spec"]["affinity"] is None
    assert "threads" not in flags("gpu")


def test_prometheus_finds_the_metrics() -> None:
    notes = DEPLOYMENT["spec"]["template"]["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(METRICS_PORT)
    assert notes["prometheus.io/path"] == METRICS


def test_a_replica_has_one_gpu_as_the_architecture_takes_no_more() -> None:
    assert "multi_gpu_supported=False" in (ROOT / "gpt_oss_mxfp4/arch.py").read_text()
    gpu = objects("Deployment")["kubernetes/gpu/deployment.yaml"]
    resources = gpu["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["limits"]["nvidia.com/gpu"] == resources["requests"]["nvidia.com/gpu"] == "1"
    assert flags("gpu")["devices"] == "gpu"


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here to build kustomizations")
@pytest.mark.parametrize(("folder", "model"), [("cpu", "20b"), ("gpu", "120b")])
def test_kustomize_builds_what_is_applied(folder: str, model: str) -> None:
    built = subprocess.run(
        ["kubectl", "kustomize", DEPLOY / "kubernetes" / folder],
        capture_output=True,
        text=True,
        check=True,
    )
    made = {d["kind"]: d for d in yaml.safe_load_all(built.stdout)}
    assert made.keys() == {
        "Deployment",
        "Job",
        "PersistentVolumeClaim",
        "PodDisruptionBudget",
        "Service",
    }
    assert {d["metadata"]["namespace"] for d in made.values()} == {"gpt-oss"}
    container = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    assert f"--model=/weights/gpt-oss-{model}" in container["args"]
    assert container["readinessProbe"]["httpGet"] == {"path": READY, "port": "http"}
    assert (
        f"openai/gpt-oss-{model}"
        in made["Job"]["spec"]["template"]["spec"]["containers"][0]["args"]
    )


def test_the_image_runs_the_command_itself_as_nobody() -> None:
    assert json.loads(arguments("ENTRYPOINT")[0]) == ["gpt-oss-mxfp4"]
    user, group = arguments("USER")[0].split(":")
    assert user == group
    assert int(user) >= 10000
    assert any(f"--uid {user} " in run for run in arguments("RUN"))
    last_stage = [name for name, _ in instructions()]
    assert last_stage.index("USER") < last_stage.index("ENTRYPOINT")


def test_the_image_installs_nothing_that_is_not_pinned_by_hash() -> None:
    for run in arguments("RUN"):
        for install in re.findall(r"pip install ([^&]*)", run):
            assert "--require-hashes -r requirements/" in install or "--no-index" in install
    source = re.escape("FROM python:3.12-slim")
    assert all(re.fullmatch(rf"{source}( AS build)?", f"FROM {f}") for f in arguments("FROM"))


def test_the_image_has_what_max_links_its_own_module_with() -> None:
    last = instructions()[[name for name, _ in instructions()].index("FROM", 1) :]
    installed = [rest for name, rest in last if name == "RUN" and "apt-get install" in rest]
    assert len(installed) == 1
    assert {"gcc", "libc6-dev"} <= set(installed[0].split())


def test_all_that_is_copied_is_there_and_sent_to_the_builder() -> None:
    rules = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    sent = [rule[1:] for rule in rules if rule.startswith("!")]
    copied = [
        word for copy in arguments("COPY") if "--from" not in copy for word in copy.split()[:-1]
    ]
    assert copied
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(fnmatch(path.split("/")[0], pattern) for pattern in sent), path


def test_the_health_check_asks_for_readiness_without_a_shell() -> None:
    check = arguments("HEALTHCHECK")[0]
    command = json.loads(check[check.index("[") :])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "health check", "exec")
    assert f"http://127.0.0.1:{HTTP_PORT}{READY}" in command[2]


def test_compose_publishes_on_this_machine_alone() -> None:
    service = compose()["services"]["serve"]
    ports = [f"127.0.0.1:{port}:{port}" for port in (HTTP_PORT, METRICS_PORT)]
    assert service["ports"] == ports
    assert service["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    assert service["secrets"] == [*compose()["secrets"]]
    assert service["read_only"] is True


@pytest.mark.parametrize("path", [DEPLOY / "compose.yaml", *MANIFESTS], ids=lambda path: path.name)
def test_no_key_and_no_host_of_anybody_is_in_a_file(path: Path) -> None:
    assert all(document.get("kind") != "Secret" for document in documents(path))
    assert "://" not in path.read_text()
