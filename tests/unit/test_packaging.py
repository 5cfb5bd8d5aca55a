"""The container, the compose files and the manifests agree with each other and with the service."""

import json
import re
import sqlite3
import subprocess
import sys
import tarfile
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_runtime.builtin.servers import SERVERS
from agent_runtime.config import load_settings
from agent_runtime.domain.tools import BuiltinServer, StdioServer, ToolServer
from agent_runtime.registry.file import load_registry

ROOT = Path(__file__).parents[2]
BASE = ROOT / "k8s" / "base"
DEV = ROOT / "k8s" / "overlays" / "dev"
POSTGRES = ROOT / "k8s" / "overlays" / "postgres"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
UID = 10001


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def project() -> Any:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pod() -> Any:
    return read(BASE / "deployment.yaml")["spec"]["template"]["spec"]


def container() -> Any:
    (only,) = pod()["containers"]
    return only


def image_variables() -> dict[str, str]:
    """Return the ENV variables of the stage that production is built from."""
    stage = DOCKERFILE.split(" AS runtime\n")[1].split("\nFROM ")[0]
    return dict(re.findall(r"^    (AGENT_RUNTIME_\w+)=(\S+)", stage, re.MULTILINE))


def entries(path: Path) -> dict[str, ToolServer]:
    return {entry.id: entry for entry in load_registry(path, SERVERS)}


# The workflow


def test_the_workflow_runs_the_ci_script_on_the_oldest_and_the_newest_python_that_are_promised() -> None:
    names = [name.removeprefix("Programming Language :: Python :: ") for name in project()["classifiers"]]
    promised = sorted((name for name in names if re.fullmatch(r"3\.\d+", name)), key=lambda name: int(name[2:]))
    assert project()["requires-python"] == f">={promised[0]}"
    job = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == [promised[0], promised[-1]]
    assert job["steps"][-1]["run"] == "bash .ci/run"


# The image


def test_the_version_of_the_image_is_that_of_the_project() -> None:
    version = project()["version"]
    assert f"\nARG VERSION={version}\n" in DOCKERFILE


def test_both_targets_exist_and_a_plain_build_gives_production() -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE)
    assert "development" in stages
    assert stages[-1] == "production"


def test_the_image_runs_as_a_number_with_an_init_and_stops_by_sigterm() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == str(UID)
    assert f"--uid {UID} " in DOCKERFILE
    assert 'ENTRYPOINT ["/usr/bin/tini", "--", "/app/entrypoint.sh"]' in DOCKERFILE
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


def test_the_service_accepts_the_variables_and_the_config_of_the_image() -> None:
    environ = image_variables() | {"AGENT_RUNTIME_CONFIG": str(ROOT / "config.yaml")}
    settings = load_settings(environ=environ | {"AGENT_RUNTIME_AUTH__MODE": "anonymous"})
    assert not settings.config_warnings
    assert settings.off_loopback
    assert settings.data_dir == Path("/data")
    assert f"EXPOSE {settings.server.port}\n" in DOCKERFILE


def test_the_variables_of_the_image_leave_who_may_call_to_the_operator() -> None:
    assert not [name for name in image_variables() if "AUTH" in name]


def test_everything_that_the_image_copies_is_let_into_the_build() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let_in = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for words in re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE):
        for source in words.split():
            assert (ROOT / source).exists()
            assert [
                path
                for path in let_in
                if path == source or Path(path).is_relative_to(source) or source.startswith(f"{path}/")
            ]


def test_nothing_that_is_let_into_the_build_is_missing() -> None:
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        assert not line.startswith("!") or (ROOT / line[1:]).exists(), line


# The registry of the image


def test_the_registry_of_the_image_is_the_project_s_but_for_the_files_and_the_npm_commands() -> None:
    of_project, of_image = entries(ROOT / "tool_registry.yaml"), entries(ROOT / "container" / "tool_registry.yaml")
    assert of_project.keys() == of_image.keys()
    for name, entry in of_project.items():
        other = of_image[name]
        assert entry.model_dump(exclude={"config"}) == other.model_dump(exclude={"config"})
        if isinstance(entry, BuiltinServer) and isinstance(other, BuiltinServer):
            assert entry.config.model_dump(exclude={"root"}) == other.config.model_dump(exclude={"root"})
    files = of_image["filesystem"]
    assert isinstance(files, BuiltinServer)
    assert files.config.root == "/data/sample_data"


def test_the_image_installs_the_very_versions_that_the_registry_names() -> None:
    package = json.loads((ROOT / "container" / "package.json").read_text())
    lock = json.loads((ROOT / "container" / "package-lock.json").read_text())
    named = dict(re.findall(r'"(@[\w-]+/[\w-]+)@([\d.]+)"', (ROOT / "tool_registry.yaml").read_text()))
    assert package["dependencies"] == named
    for name, version in named.items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version


def test_the_lock_of_the_image_names_no_place_to_download_from() -> None:
    lock = json.loads((ROOT / "container" / "package-lock.json").read_text())
    assert all(
        "resolved" not in package and "integrity" in package for name, package in lock["packages"].items() if name
    )


def test_a_stdio_server_of_the_image_is_a_command_that_the_image_installs() -> None:
    lock = json.loads((ROOT / "container" / "package-lock.json").read_text())
    installed = {command for package in lock["packages"].values() for command in package.get("bin", {})}
    servers = entries(ROOT / "container" / "tool_registry.yaml").values()
    commands = {server.config.command for server in servers if isinstance(server, StdioServer)}
    assert commands
    assert commands <= {command for command in installed if command.startswith("mcp-")}


# Compose


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.prod.yml"])
def test_the_service_accepts_the_variables_of_a_compose_file(name: str) -> None:
    given = read(ROOT / "docker-compose.yml")["services"]["agent-runtime"]["environment"]
    given = given | read(ROOT / name)["services"]["agent-runtime"]["environment"]
    environ = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in given.items()}
    settings = load_settings(environ=image_variables() | environ | {"AGENT_RUNTIME_CONFIG": str(ROOT / "config.yaml")})
    assert not settings.config_warnings
    assert not settings.openai.configured
    assert {"localhost", "127.0.0.1", "[::1]"} <= set(settings.server.allowed_hosts)
    assert settings.asks_for_keys is (name == "docker-compose.prod.yml")


def test_compose_publishes_the_port_of_the_image_on_loopback_only() -> None:
    service = read(ROOT / "docker-compose.yml")["services"]["agent-runtime"]
    assert service["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]
    assert "ports" not in read(ROOT / "docker-compose.prod.yml")["services"]["agent-runtime"]
    assert service["volumes"] == ["data:/data"]


def test_the_keys_of_the_production_stack_are_in_a_folder_that_is_mounted_and_may_be_missing() -> None:
    service = read(ROOT / "docker-compose.prod.yml")["services"]["agent-runtime"]
    # With the short form the engine creates a missing folder; with the long form it refuses to start the stack.
    assert service["volumes"] == ["${KEYS_FOLDER:-./secrets}:/run/agent-runtime-keys:ro"]
    keys_file = service["environment"]["AGENT_RUNTIME_AUTH__KEYS_FILE"]
    assert keys_file == "/run/agent-runtime-keys/agent_runtime_keys"


def test_the_production_stack_is_locked_down_and_bounded() -> None:
    service = read(ROOT / "docker-compose.prod.yml")["services"]["agent-runtime"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert service["restart"] == "unless-stopped"


def replica() -> Any:
    return read(ROOT / "docker-compose.prod.yml")["services"]["replica"]


def test_the_profile_of_replicas_starts_nothing_unless_it_is_asked_for() -> None:
    services = read(ROOT / "docker-compose.prod.yml")["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["agent-runtime"]
    assert all(service["profiles"] == ["replicas"] for name, service in services.items() if name != "agent-runtime")


def test_a_replica_is_set_up_like_the_single_service_but_for_its_database_and_its_files() -> None:
    single = read(ROOT / "docker-compose.yml")["services"]["agent-runtime"]
    single = single | read(ROOT / "docker-compose.prod.yml")["services"]["agent-runtime"]
    apart = {"extends", "ports", "profiles", "environment", "volumes", "develop", "depends_on", "deploy", "build"}
    for name in single.keys() - apart:
        assert replica()[name] == single[name], name
    assert replica()["deploy"]["replicas"] == 2
    assert replica()["deploy"]["resources"] == single["deploy"]["resources"]
    assert "ports" not in replica()


def test_replicas_ask_for_keys_keep_their_tasks_in_the_database_and_share_the_files() -> None:
    environ = {key: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for key, value in replica()["environment"].items()}
    settings = load_settings(environ=image_variables() | environ | {"AGENT_RUNTIME_CONFIG": str(ROOT / "config.yaml")})
    assert settings.asks_for_keys
    assert settings.storage.on_postgresql
    files = entries(ROOT / "container" / "tool_registry.yaml")["filesystem"]
    assert isinstance(files, BuiltinServer)
    assert f"files:{files.config.root}" in replica()["volumes"]
    assert f" {files.config.root}\n" in DOCKERFILE  # its owner is that of a new volume
    # A volume for all of /data would be the same for both, and a data directory has one owner.
    assert not [volume for volume in replica()["volumes"] if volume.endswith(":/data")]


def test_the_proxy_of_the_replicas_reaches_them_by_the_name_and_port_that_they_have() -> None:
    proxy = read(ROOT / "docker-compose.prod.yml")["services"]["proxy"]
    mounted = [volume.partition(":")[0] for volume in proxy["volumes"]]
    text = "".join((ROOT / name).read_text() for name in mounted)
    (server,) = re.findall(r"^ +server (\S+) resolve", text, re.MULTILINE)
    environ = image_variables() | {"AGENT_RUNTIME_CONFIG": str(ROOT / "config.yaml")}
    assert server == f"replica:{load_settings(environ=environ).server.port}"
    (listen,) = re.findall(r"listen (\d+);", text)
    assert proxy["ports"] == [f"${{PUBLISH:-127.0.0.1:8000}}:{listen}"]
    assert set(proxy["depends_on"]) == {"replica"}


# Other platforms


class _Template(yaml.SafeLoader):
    """Reads a CloudFormation template; tags like `!Ref` become the names that they refer to."""


_Template.add_multi_constructor("!", lambda _, tag, node: f"{tag} {node.value}")


def platform_container(name: str) -> tuple[dict[str, str], set[int], list[str]]:
    """Return the variables, ports and data folders that a file of deploy/ sets for the container."""
    file = yaml.load((ROOT / "deploy" / name).read_text(encoding="utf-8"), _Template)  # noqa: S506 - a safe loader
    if name == "ecs.yaml":
        (task,) = file["Resources"]["Task"]["Properties"]["ContainerDefinitions"]
        given = {one["Name"]: one["Value"] for one in task["Environment"]}
        given |= {one["Name"]: "" for one in task["Secrets"]}
        return (
            given,
            {one["ContainerPort"] for one in task["PortMappings"]},
            [one["ContainerPath"] for one in task["MountPoints"]],
        )
    if name == "cloud-run.yaml":
        (one,) = file["spec"]["template"]["spec"]["containers"]
        properties = {**one, "environmentVariables": one["env"]}
    else:
        (one,) = file["properties"]["containers"]
        properties = one["properties"]
    given = {each["name"]: each.get("value", "") for each in properties["environmentVariables"]}
    ports = {each.get("containerPort", each.get("port")) for each in properties["ports"]}
    return given, ports, [each["mountPath"] for each in properties["volumeMounts"]]


@pytest.mark.parametrize("name", ["ecs.yaml", "cloud-run.yaml", "azure-container-group.yaml"])
def test_a_container_platform_gets_variables_that_mean_something_the_port_and_the_volume(name: str) -> None:
    given, ports, folders = platform_container(name)
    settings = load_settings(environ=image_variables() | given | {"AGENT_RUNTIME_CONFIG": str(ROOT / "config.yaml")})
    assert not settings.config_warnings
    assert settings.asks_for_keys
    assert "AGENT_RUNTIME_AUTH__KEYS" in given
    assert ports == {settings.server.port}
    assert folders == [str(settings.data_dir)]


# Kubernetes


@pytest.mark.parametrize("folder", [BASE, DEV, POSTGRES], ids=["base", "dev", "postgres"])
def test_a_kustomization_names_the_files_that_are_there(folder: Path) -> None:
    kustomization = read(folder / "kustomization.yaml")
    named = [file for generator in kustomization.get("configMapGenerator", []) for file in generator["files"]]
    named += kustomization["resources"] + [patch["path"] for patch in kustomization.get("patches", [])]
    assert all((folder / name).exists() for name in named)
    here = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert here <= set(named)


@pytest.mark.parametrize("folder", [BASE, DEV], ids=["base", "dev"])
def test_the_service_accepts_the_config_of_the_cluster(folder: Path) -> None:
    settings = load_settings(environ=image_variables() | {"AGENT_RUNTIME_CONFIG": str(folder / "config.yaml")})
    assert not settings.config_warnings
    assert settings.asks_for_keys is (folder == BASE)
    assert "127.0.0.1" in settings.server.allowed_hosts
    assert read(BASE / "service.yaml")["metadata"]["name"] in settings.server.allowed_hosts


def test_every_manifest_is_validated_on_every_change() -> None:
    manifests = {path for path in BASE.glob("*.yaml") if read(path).get("kind", "Kustomization") != "Kustomization"}
    assert manifests
    script = (ROOT / ".ci" / "run").read_text()
    (line,) = re.findall(r"k8s/base/\{(.+)\}\.yaml", script)
    assert {path.stem for path in manifests} == set(line.split(","))
    (line,) = re.findall(r"k8s/overlays/postgres/\{(.+)\}\.yaml", script)
    resources = read(POSTGRES / "kustomization.yaml")["resources"]
    assert {Path(name).stem for name in resources if name.endswith(".yaml")} == set(line.split(","))


def test_the_registry_of_the_cluster_is_that_of_the_image() -> None:
    assert (BASE / "tool_registry.yaml").read_text() == (ROOT / "container" / "tool_registry.yaml").read_text()


def test_every_volume_of_the_pod_is_mounted_and_every_mount_has_its_volume() -> None:
    assert {mount["name"] for mount in container()["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}


def test_the_pod_uses_the_config_maps_that_kustomize_makes_where_the_service_looks_for_them() -> None:
    made = {one["name"]: one["files"][0] for one in read(BASE / "kustomization.yaml")["configMapGenerator"]}
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in pod()["volumes"] if "configMap" in volume}
    mounts = {mount["name"]: mount["mountPath"] for mount in container()["volumeMounts"]}
    found = {f"{mounts[name]}/{made[config_map]}" for name, config_map in volumes.items()}
    variables = {one["name"]: one.get("value") for one in container()["env"]}
    assert found == {variables["AGENT_RUNTIME_CONFIG"], variables["AGENT_RUNTIME_TOOL_REGISTRY"]}


def test_the_overlay_on_postgresql_has_no_volume_but_the_files_that_all_replicas_share() -> None:
    (patch,) = read(POSTGRES / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    volumes = {one["name"]: one for one in read(POSTGRES / "deployment.yaml")["spec"]["template"]["spec"]["volumes"]}
    claim = read(POSTGRES / "files.yaml")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    assert volumes["files"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"] is None
    files = entries(BASE / "tool_registry.yaml")["filesystem"]
    assert isinstance(files, BuiltinServer)
    assert patch["volumeMounts"] == [{"name": "files", "mountPath": files.config.root}]
    dropped = read(POSTGRES / "no-journal-volume.yaml")
    assert (dropped["metadata"]["name"], dropped["$patch"]) == ("agent-runtime-data", "delete")


def test_the_overlay_on_postgresql_keeps_three_replicas_while_it_is_updated_or_a_node_is_drained() -> None:
    deployment = read(POSTGRES / "deployment.yaml")
    scaler = read(POSTGRES / "horizontalpodautoscaler.yaml")["spec"]
    assert deployment["spec"]["replicas"] is None  # two places that set it would fight
    assert scaler["minReplicas"] == 3
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    labels = read(BASE / "deployment.yaml")["spec"]["selector"]
    assert read(POSTGRES / "poddisruptionbudget.yaml")["spec"] == {"maxUnavailable": 1, "selector": labels}


def test_the_job_that_migrates_is_confined_like_the_service_and_no_replica() -> None:
    template = read(POSTGRES / "job.yaml")["spec"]["template"]
    (job,) = template["spec"]["containers"]
    assert job["args"] == ["agent-runtime", "migrate"]
    assert (job["image"], job["securityContext"]) == (container()["image"], container()["securityContext"])
    assert template["spec"]["securityContext"].items() <= pod()["securityContext"].items()
    assert template["metadata"]["labels"] != read(BASE / "service.yaml")["spec"]["selector"]
    (patch,) = read(POSTGRES / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    assert patch["env"][0] in job["env"]


def test_the_keys_of_the_cluster_are_the_secret_that_is_mounted() -> None:
    keys_file = load_settings(environ={"AGENT_RUNTIME_CONFIG": str(BASE / "config.yaml")}).auth.keys_file
    mounts = {mount["name"]: Path(mount["mountPath"]) for mount in container()["volumeMounts"]}
    assert keys_file == mounts["keys"] / "keys"
    (secret,) = [volume["secret"] for volume in pod()["volumes"] if volume["name"] == "keys"]
    assert "optional" not in secret
    documented = f"create secret generic {secret['secretName']}"
    assert documented in (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()


def test_the_data_is_one_claim_of_one_node_and_one_pod_at_a_time() -> None:
    claim = read(BASE / "persistentvolumeclaim.yaml")
    (used,) = [volume["persistentVolumeClaim"] for volume in pod()["volumes"] if "persistentVolumeClaim" in volume]
    assert used["claimName"] == claim["metadata"]["name"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    spec = read(BASE / "deployment.yaml")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_selectors_and_ports_meet() -> None:
    labels = read(BASE / "deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert read(BASE / "deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert read(BASE / "service.yaml")["spec"]["selector"] == labels
    policy = read(BASE / "networkpolicy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    (port,) = container()["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    assert read(BASE / "service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    assert policy["ingress"][0]["ports"] == [{"port": port["name"], "protocol": "TCP"}]


def test_probes_ask_what_the_service_answers_under_any_host() -> None:
    paths = {name: container()[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert [probe["path"] for probe in paths.values()] == ["/healthz", "/healthz", "/readyz"]
    for probe in paths.values():
        assert probe["port"] == container()["ports"][0]["name"]


def test_the_pod_meets_the_restricted_standard() -> None:
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    security = pod()["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {security["runAsUser"], security["runAsGroup"], security["fsGroup"]} == {UID}
    assert pod()["enableServiceLinks"] is False
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["serviceAccountName"] == read(BASE / "serviceaccount.yaml")["metadata"]["name"]
    assert set(container()["resources"]) == {"requests", "limits"}


def test_the_grace_of_the_cluster_and_of_compose_fits_the_stop_of_the_service() -> None:
    shutdown_s = load_settings(environ={"AGENT_RUNTIME_CONFIG": str(BASE / "config.yaml")}).limits.shutdown_s
    assert pod()["terminationGracePeriodSeconds"] > shutdown_s + 5
    grace = read(ROOT / "docker-compose.yml")["services"]["agent-runtime"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > shutdown_s + 5


def test_each_place_runs_the_image_that_is_made_for_it() -> None:
    image = container()["image"]
    assert replica()["image"] == f"${{IMAGE:-{image}:prod}}"
    for folder, tag in ((BASE, "prod"), (DEV, "dev")):
        assert read(folder / "kustomization.yaml")["images"] == [{"name": image, "newTag": tag}]
    for name, tag in (("docker-compose.yml", "dev"), ("docker-compose.prod.yml", "prod")):
        assert read(ROOT / name)["services"]["agent-runtime"]["image"] == f"${{IMAGE:-{image}:{tag}}}"


# The helpers in the image


def run(script: str, environ: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-I", str(ROOT / "container" / script)]
    return subprocess.run(command, env=environ, capture_output=True, timeout=20, check=False)


def test_a_backup_holds_what_was_committed_and_no_lock(tmp_path: Path) -> None:
    data, archive = tmp_path / "data", tmp_path / "backup.tar"
    (data / "sample_data").mkdir(parents=True)
    (data / "sample_data" / "notes.txt").write_text("kept")
    (data / "agent-runtime.lock").write_text("{}")
    (data / "lost+found").mkdir(mode=0)
    with closing(sqlite3.connect(data / "agent-runtime.db", isolation_level=None)) as live:
        live.execute("PRAGMA journal_mode = WAL")
        live.execute("CREATE TABLE told (what TEXT)")
        live.execute("INSERT INTO told VALUES ('committed')")
        live.execute("BEGIN IMMEDIATE")
        live.execute("INSERT INTO told VALUES ('not committed')")
        done = run("backup.py", {"AGENT_RUNTIME_DATA_DIR": str(data)})
        live.execute("ROLLBACK")
    assert done.returncode == 0, done.stderr
    archive.write_bytes(done.stdout)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["agent-runtime.db", "sample_data", "sample_data/notes.txt"]
        tar.extractall(tmp_path / "restored", filter="data")
    with closing(sqlite3.connect(tmp_path / "restored" / "agent-runtime.db")) as restored:
        assert restored.execute("SELECT what FROM told").fetchall() == [("committed",)]
    assert not list(data.glob(".backup-*"))


def test_the_health_check_fails_where_nothing_answers() -> None:
    done = run("healthcheck.py", {"AGENT_RUNTIME_SERVER__PORT": "1", "AGENT_RUNTIME_DATA_DIR": "/nowhere"})
    assert done.returncode == 1
    assert b"127.0.0.1:1 does not answer" in done.stderr


def test_the_health_check_asks_where_the_service_says_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "agent-runtime.lock").write_text('{"pid": 1, "url": "http://127.0.0.1:2"}')
    done = run("healthcheck.py", {"AGENT_RUNTIME_SERVER__PORT": "1", "AGENT_RUNTIME_DATA_DIR": str(tmp_path)})
    assert b"127.0.0.1:2 does not answer" in done.stderr


@pytest.mark.parametrize("script", ["test_container.sh", "container/entrypoint.sh"])
def test_a_script_can_be_run_and_is_one(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    assert subprocess.run(["bash", "-n", str(ROOT / script)], timeout=20, check=False).returncode == 0
