"""`deploy/k8s` as a cluster would see it: rendered, held against its schemas and against us."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from service_process import Server, told_by

from sidecar.api import live_routes
from sidecar.cli.common_options import describe
from sidecar.config.setting_types import MIN_TOKEN_CHARACTERS
from sidecar.config.settings import ENV_PREFIX, Settings
from sidecar.engines import ENGINES
from sidecar.plugins import load_settings
from sidecar.plugins.grpc_stt.servicer import NAME
from sidecar.plugins.realtime.routes import REALTIME
from sidecar.plugins.s2s import routes as s2s
from sidecar.plugins.shared_jobs.s3_storage import S3Storage
from sidecar.plugins.shared_jobs.storage_selection import create_recording_storage
from sidecar.plugins.yap import routes as yap_routes

ROOT = Path(__file__).parents[2]
K8S = ROOT / "deploy/k8s"
CLUSTERS = ("overlays/cluster", "overlays/cluster-bucket")
"""Recordings in a folder that all pods see, and in an object storage."""
KUSTOMIZATIONS = ("base", "overlays/cpu", *CLUSTERS, "overlays/cluster-ears", "pull")
OTHERS = "keda.sh/"
"""Whose kinds the API knows only where somebody has installed them."""
VERSIONS = ("1.31", "1.37")
"""Of Kubernetes: the oldest that has all of it without being asked, and a new one."""
PART = "app.kubernetes.io/component"
UPLOADS = ("VIBEVOICE_QUEUE_LIMIT", "VIBEVOICE_MAX_UPLOAD_MB", "VIBEVOICE_UPLOAD_ROOM_MB")
"""Settings of a ConfigMap that say how much may be uploaded."""
FETCHED_S = 5
"""What a service takes at its end beside its grace: results that ended with it are fetched."""

yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra 'vibevoice'")


@functools.cache
def rendered(name: str | Path) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send; no test changes it."""
    for program, words in (("kubectl", ["kustomize"]), ("kustomize", ["build"])):
        if shutil.which(program):
            done = told_by([program, *words, str(K8S / name)])
            assert done.returncode == 0, done.stderr
            return [one for one in yaml.safe_load_all(done.stdout) if one]
    pytest.skip("kubectl or kustomize is missing: no overlay was rendered")


def written(name: str) -> list[dict[str, Any]]:
    """The resources as they lie there, without what kustomize adds."""
    folder = K8S / name
    said = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
    texts = [(folder / one).read_text("utf-8") for one in said["resources"]]
    return [one for text in texts for one in yaml.safe_load_all(text) if one]


def of_kind(objects: list[dict[str, Any]], kind: str, part: str = "") -> dict[str, Any]:
    """The only one, or the only one of a ``part`` of a cluster."""
    (found,) = [
        one
        for one in objects
        if one["kind"] == kind and (not part or one["metadata"].get("labels", {})[PART] == part)
    ]
    return found


def labels_of(objects: list[dict[str, Any]], part: str = "") -> dict[str, str]:
    """Those of its pods."""
    return of_kind(objects, "Deployment", part)["spec"]["template"]["metadata"]["labels"]


def selectors_of(objects: list[dict[str, Any]], part: str = "") -> list[dict[str, str]]:
    """By what all that is said of a part's pods finds them."""
    specs = [
        of_kind(objects, kind, part)["spec"]
        for kind in ("Deployment", "PodDisruptionBudget", "NetworkPolicy")
    ]
    return [(one.get("selector") or one["podSelector"])["matchLabels"] for one in specs]


def pod_of(objects: list[dict[str, Any]], kind: str = "Deployment") -> dict[str, Any]:
    spec: dict[str, Any] = of_kind(objects, kind)["spec"]["template"]["spec"]
    return spec


@pytest.mark.slow_except("1.37")
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_kubernetes_objects_are_valid_by_schemas_of_the_oldest_and_of_a_new_version(
    name: str, version: str
) -> None:
    validate = pytest.importorskip("kubernetes_validate").validate
    for one in rendered(name):
        if not one["apiVersion"].startswith(OTHERS):
            validate(one, version, strict=True)


def test_component_for_tokens_mounts_key_and_revocation_list_where_service_reads_them(
    tmp_path: Path,
) -> None:
    (block,) = re.findall(
        r"```yaml\n(.*?)```", (ROOT / "docs/deploy.md").read_text("utf-8"), re.DOTALL
    )
    to_deploy = os.path.relpath(K8S.parent, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(block.replace("../deploy", to_deploy), "utf-8")
    objects = rendered(tmp_path)
    validate = pytest.importorskip("kubernetes_validate").validate
    validate(of_kind(objects, "Deployment"), VERSIONS[-1], strict=True)
    pod = pod_of(objects)
    (container,) = pod["containers"]
    (keys,) = (one for one in container["env"] if one["name"] == f"{ENV_PREFIX}TOKEN_KEYS")
    (mount,) = (one for one in container["volumeMounts"] if one["name"] == "tokens")
    (volume,) = (one for one in pod["volumes"] if one["name"] == "tokens")
    files = {f"{mount['mountPath']}/{one['path']}" for one in volume["configMap"]["items"]}
    assert files == {f"{keys['value']}/key.pem", f"{Path(keys['value']).parent}/revoked.txt"}


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_every_file_is_in_its_kustomization(name: str) -> None:
    files = {one.name for one in (K8S / name).glob("*.yaml")} - {"kustomization.yaml"}
    said = yaml.safe_load((K8S / name / "kustomization.yaml").read_text("utf-8"))["resources"]
    assert files == {one for one in said if one.endswith(".yaml")}


def gib(quantity: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(Gi|Mi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) / (1 if unit == "Gi" else 1024)


def most_uploaded_gib(settings: Settings, running: int) -> tuple[float, float]:
    """What jobs have at most, those that wait and those that run; and what is on its way besides
    (for `/v1/estimate`): the room for uploads, which one may exceed."""
    jobs = (settings.queue_limit + 1 + running) * settings.max_upload_mb
    return jobs / 1024, (settings.upload_room_mb + settings.max_upload_mb) / 1024


@pytest.mark.parametrize("name", [one for one in KUSTOMIZATIONS if one != "pull"])
def test_largest_uploads_fit_into_spool_and_shared_volume_and_spool_into_disk_of_pod(
    name: str, settings_of: Given
) -> None:
    objects = rendered(name)
    configs = {one["metadata"]["name"]: one for one in objects if one["kind"] == "ConfigMap"}
    for deployment in (one for one in objects if one["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        data = configs[container["envFrom"][0]["configMapRef"]["name"]]["data"]
        settings = settings_of({key: value for key, value in data.items() if key in UPLOADS})
        empty = {one["name"]: one["emptyDir"] for one in pod["volumes"] if "emptyDir" in one}
        running = max(spec.together for spec in ENGINES) + 1  # in step, and one behind them
        jobs, besides = most_uploaded_gib(settings, running)
        assert jobs + besides <= gib(empty["spool"]["sizeLimit"])
        disk = sum(gib(one["sizeLimit"]) for one in empty.values())
        assert disk <= gib(container["resources"]["limits"]["ephemeral-storage"])
        for claim in (one for one in objects if one["metadata"]["name"] == "vibevoice-asr-jobs"):
            nodes = of_kind(objects, "ScaledObject")["spec"]["maxReplicaCount"]
            jobs, _ = most_uploaded_gib(settings, nodes * running)
            assert jobs <= gib(claim["spec"]["resources"]["requests"]["storage"])


Given = Callable[[dict[str, str]], Settings]


@pytest.fixture
def settings_of(no_settings: Path, monkeypatch: pytest.MonkeyPatch) -> Given:
    """The settings of a service that has these variables, and its spool here."""

    def load(variables: dict[str, str]) -> Settings:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(f"{ENV_PREFIX}SPOOL_DIR", str(no_settings.parent))
        return load_settings()

    return load


def test_config_map_settings_are_valid_and_match_ports_mounts_and_grace_of_pod(
    settings_of: Given,
) -> None:
    data = of_kind(written("base"), "ConfigMap")["data"]
    assert set(data) <= {flag.env for flag in describe()}
    container = pod_of(written("base"))["containers"][0]
    (token,) = container["env"]
    settings = settings_of({**data, token["name"]: "x" * MIN_TOKEN_CHARACTERS})
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    assert ports == {"http": settings.port, "grpc": settings.grpc_port}
    assert data["VIBEVOICE_SPOOL_DIR"] in {one["mountPath"] for one in container["volumeMounts"]}
    pod = pod_of(written("base"))
    ending_s = settings.shutdown_grace + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > ending_s + FETCHED_S
    service = of_kind(written("base"), "Service")["spec"]["ports"]
    assert {one["targetPort"]: one["port"] for one in service} == ports


@pytest.mark.parametrize(("name", "kind"), [("base", "Deployment"), ("pull", "Job")])
def test_pods_run_unprivileged_as_user_of_image_with_read_only_root_and_memory_limit(
    name: str, kind: str
) -> None:
    pod = pod_of(written(name), kind)
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    (user,) = re.findall(r"(?m)^USER (\d+)$", dockerfile)
    assert pod["securityContext"]["runAsUser"] == int(user)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert mounted >= {"/models", "/tmp", "/home/vibevoice"}
    (home,) = re.findall(r"(?m)^WORKDIR (/home/\S+)$", dockerfile)
    (models,) = re.findall(r"HF_HOME=(\S+)", dockerfile)
    assert {home, models} <= mounted
    volumes = {one["name"] for one in pod["volumes"]}
    assert {one["name"] for one in container["volumeMounts"]} == volumes
    assert "memory" in container["resources"]["limits"]


def test_base_has_gpu_and_cuda_image_and_cpu_overlay_cpu_image_without_gpu_or_claim() -> None:
    limits = pod_of(rendered("base"))["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 1
    without = rendered("overlays/cpu")
    assert "nvidia" not in yaml.safe_dump_all(without)
    assert pod_of(without)["containers"][0]["image"].endswith(":cpu")
    assert pod_of(rendered("base"))["containers"][0]["image"].endswith(":cuda")
    claims = [volume for volume in pod_of(without)["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == []
    assert of_kind(without, "ConfigMap")["data"]["VIBEVOICE_ENGINE"] == "auto"


def test_base_selects_pods_of_service_and_not_of_download_job_and_allows_no_egress() -> None:
    objects, job = rendered("base"), of_kind(rendered("pull"), "Job")
    others = job["spec"]["template"]["metadata"]["labels"]
    for selector in [*selectors_of(objects), of_kind(objects, "Service")["spec"]["selector"]]:
        assert selector.items() <= labels_of(objects).items()
        assert not selector.items() <= others.items()
    assert (
        of_kind(objects, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"]
        == (of_kind(objects, "Deployment")["metadata"]["name"])
    )
    assert of_kind(objects, "NetworkPolicy")["spec"]["egress"] == []


@pytest.mark.parametrize("part", ["front", "node"])
@pytest.mark.parametrize("name", CLUSTERS)
def test_settings_of_front_and_node_are_valid_and_match_role_storage_grace_and_gpu_of_pod(
    name: str, part: str, settings_of: Given, tmp_path: Path
) -> None:
    objects = rendered(name)
    pod = of_kind(objects, "Deployment", part)["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    data = of_kind(objects, "ConfigMap", part)["data"]
    assert container["envFrom"][0]["configMapRef"]["name"].endswith("node") is (part == "node")
    known = {
        "VIBEVOICE_JOURNAL": "postgresql://somebody@somewhere/jobs",
        "VIBEVOICE_UPLOADS": "s3://recordings/asr",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.org",
    }
    given = {one["name"]: known.get(one["name"], "x" * 64) for one in container["env"]}
    settings = settings_of(data | given)
    assert settings.role == part
    assert (settings.grpc_port is None) is (part == "node")
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    if name == CLUSTERS[0]:
        assert str(Path(settings.uploads).parent) in mounted
    else:
        assert "/jobs" not in mounted
        assert isinstance(create_recording_storage(settings, tmp_path), S3Storage)
    ending_s = settings.shutdown_grace + container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > ending_s + FETCHED_S
    assert ("nvidia" in yaml.safe_dump(pod)) is (part == "node")


@pytest.mark.parametrize("name", CLUSTERS)
def test_cluster_service_selects_fronts_only_and_no_selector_of_a_part_matches_the_other(
    name: str,
) -> None:
    objects = rendered(name)
    for part, other in (("front", "node"), ("node", "front")):
        for selector in selectors_of(objects, part):
            assert not selector.items() <= labels_of(objects, other).items()
    service = of_kind(objects, "Service")["spec"]
    assert service["selector"][PART] == "front"
    assert service["sessionAffinity"] == "ClientIP", "live sessions are one pod's"
    assert len(of_kind(objects, "NetworkPolicy", "node")["spec"]["ingress"]) == 1
    claims = {one["metadata"]["name"] for one in objects if one["kind"].endswith("VolumeClaim")}
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for part in ("front", "node")
        for volume in of_kind(objects, "Deployment", part)["spec"]["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert mounted == claims
    scaled = of_kind(objects, "ScaledObject")["spec"]
    nodes = of_kind(objects, "Deployment", "node")
    assert scaled["scaleTargetRef"]["name"] == nodes["metadata"]["name"]


@pytest.mark.parametrize("name", [one for one in KUSTOMIZATIONS if one != "pull"])
def test_each_pod_selector_in_network_policy_rules_has_one_label(name: str) -> None:
    ends = [
        end["podSelector"]["matchLabels"]
        for one in rendered(name)
        if one["kind"] == "NetworkPolicy"
        for rule in (*one["spec"]["ingress"], *one["spec"]["egress"])
        for end in (*rule.get("from", ()), *rule.get("to", ()))
        if "podSelector" in end
    ]
    assert ends
    for labels in ends:
        assert len(labels) == 1, "clients, PostgreSQL and names are no pods of ours"


def test_ingress_sends_live_requests_to_ears_and_rest_to_fronts() -> None:
    objects = rendered("overlays/cluster-ears")
    assert of_kind(objects, "ConfigMap", "front")["data"]["VIBEVOICE_LIVE_ENGINE"] == "none"
    assert "VIBEVOICE_LIVE_ENGINE" not in of_kind(objects, "ConfigMap", "ears")["data"]
    sent = {
        path["path"]: path["backend"]["service"]
        for one in objects
        if one["kind"] == "Ingress"
        for path in one["spec"]["rules"][0]["http"]["paths"]
    }
    for part, port, paths in (
        ("front", "http", {"/"}),
        ("ears", "http", {live_routes.PATH, REALTIME, "/v1/talk", s2s.PATH, yap_routes.PATH}),
        ("ears", "grpc", {f"/{NAME}"}),
    ):
        service = of_kind(objects, "Service", part)
        backend = {"name": service["metadata"]["name"], "port": {"name": port}}
        assert {path for path, to in sent.items() if to == backend} == paths
        assert port in {one["name"] for one in service["spec"]["ports"]}
        assert service["spec"]["selector"].items() <= labels_of(objects, part).items()
        trusted = of_kind(objects, "ConfigMap", part)["data"]["VIBEVOICE_FORWARDED_ALLOW_IPS"]
        networks = [ip_network(one) for one in re.split(r",\s*", trusted)]
        for pod in ("10.244.1.7", "172.17.0.3", "192.168.77.4", "100.64.3.2", "fd00:10:244::5"):
            assert any(ip_address(pod) in one for one in networks), "what the Ingress says counts"
        assert not any(ip_address("203.0.113.9") in one for one in networks)
        rule = of_kind(objects, "NetworkPolicy", part)["spec"]["ingress"][0]
        assert "ingress-nginx" in str(rule["from"])
        assert {"port": port} in rule["ports"]


def test_server_answers_probe_paths_of_pod_and_exports_metrics_of_autoscaler(
    server: Server,
) -> None:
    objects = written("base")
    container = pod_of(objects)["containers"][0]
    paths = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness")]
    paths.append(container["readinessProbe"]["httpGet"]["path"])
    assert [server.client.get(path).status_code for path in paths] == [200, 200, 200]
    template = of_kind(objects, "Deployment")["spec"]["template"]
    marks = template["metadata"]["annotations"]
    assert marks["prometheus.io/port"] == of_kind(objects, "ConfigMap")["data"]["VIBEVOICE_PORT"]
    told = server.client.get(marks["prometheus.io/path"]).raise_for_status().text
    for metric in of_kind(objects, "HorizontalPodAutoscaler")["spec"]["metrics"]:
        assert f"# TYPE {metric['pods']['metric']['name']} gauge" in told
