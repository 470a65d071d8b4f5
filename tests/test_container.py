"""docs/container: the image's steps, the objects for Kubernetes, and nights of a pod."""

from __future__ import annotations

import copy
import json
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import click
import pods
import pytest
import yaml
from archive import portrait
from containerfile import ROOT, copy_into, seen_by_the_build, stages
from pods import Cluster, documents, pod_of

from enroll import __version__
from enroll.addresses import ledger_named
from enroll.cli import cli
from enroll.cli.enrolling import sync
from enroll.errors import ExitCode
from enroll.ledger.postgres_connection import Server
from enroll.sandbox import Sandbox

FOLDER = ROOT / "docs/container"
PAGE = (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8")
OBJECTS = documents(FOLDER / "enroll-staff.yaml")
CRON_JOB = OBJECTS["CronJob"]
JOB = CRON_JOB["spec"]["jobTemplate"]["spec"]
POD = pod_of(CRON_JOB)
SETTINGS = OBJECTS["ConfigMap"]["data"]["enroll.toml"]

OF_A_SERVICE = {
    "ENROLL_SERVICE_HOST": "10.0.0.1",
    "ENROLL_SERVICE_PORT": "80",
    "ENROLL_PORT": "tcp://10.0.0.1:80",
    "ENROLL_PORT_80_TCP": "tcp://10.0.0.1:80",
    "ENROLL_PORT_80_TCP_ADDR": "10.0.0.1",
}
"""What a container gets for a service named `enroll` where `enableServiceLinks` is not false."""


def refusals(found: dict[str, Any]) -> str:
    """What the schema of Kubernetes has against an object; "" for nothing."""
    import kubernetes_validate  # takes 0.2 s, of every worker that collects this

    try:
        kubernetes_validate.validate(found, "1.37", strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{found['kind']}: {error.message}"
    return ""


def test_every_object_is_one_that_kubernetes_knows() -> None:
    found = [one for file in FOLDER.glob("*.yaml") for one in yaml.safe_load_all(file.read_text())]
    assert {one["kind"] for one in found} == {
        *("ConfigMap", "CronJob", "PersistentVolumeClaim", "Pod", "Secret")
    }
    assert [refusals(one) for one in found if refusals(one)] == []
    assert not any("namespace" in one["metadata"] for one in found)
    wrong = copy.deepcopy(CRON_JOB)
    wrong["spec"]["concurencyPolicy"] = "Forbid"
    assert "concurencyPolicy" in refusals(wrong)


def commands_of_the_page() -> Iterator[list[str]]:
    """The words of each `enroll` that the page and the objects run, without `enroll`."""
    yield POD["containers"][0]["args"]
    for line in re.findall(r"^kubectl exec .*? -- enroll (.*)$", PAGE, flags=re.MULTILINE):
        yield shlex.split(line.split(" > ")[0])


def test_every_command_is_taken_by_the_command_line() -> None:
    found = list(commands_of_the_page())
    assert len(found) > 4
    for words in found:
        command: click.Command | None = cli
        rest = [word for word in words if not word.startswith("--config")]
        while isinstance(command, click.Group):
            command = command.get_command(click.Context(cli), rest.pop(0))
        assert command is not None, words
        command.make_context(command.name, rest)


def test_every_exit_code_has_its_place_in_the_jobs_policy() -> None:
    ignored, failing = JOB["podFailurePolicy"]["rules"]
    assert ignored["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    codes = failing["onExitCodes"]["values"]
    assert codes == sorted(codes)
    assert failing["onExitCodes"]["containerName"] == POD["containers"][0]["name"]
    again = set(ExitCode) - {ExitCode.DONE, *map(ExitCode, codes)}
    assert again == {
        *(ExitCode.UNREACHED, ExitCode.HANGUP, ExitCode.INTERRUPTED, ExitCode.TERMINATED)
    }
    table = PAGE[PAGE.index("| exit code |") :]
    for code in ExitCode:
        (row,) = re.findall(rf"^\|[^|]*\b{int(code)}\b[^|]*\|([^|]*)\|", table, flags=re.MULTILINE)
        what = "Failed" if code in codes else "Complete" if code is ExitCode.DONE else "new pod"
        assert what in row, (code, row)
    assert POD["restartPolicy"] == "Never"  # a policy needs that


def test_kubernetes_never_cuts_off_what_would_have_ended_by_itself() -> None:
    settings = tomllib.loads(SETTINGS)
    hours = int(settings["max_duration"].removesuffix("h"))
    waits = JOB["backoffLimit"] * (settings["give_up_after"] + 60)
    drain = next(float(str(one.default)) for one in sync.params if one.name == "drain")
    assert JOB["activeDeadlineSeconds"] >= hours * 3600 + waits + 900
    assert POD["terminationGracePeriodSeconds"] >= drain + 60
    assert CRON_JOB["spec"]["concurrencyPolicy"] == "Forbid"


def test_the_settings_are_options_of_the_command_and_lie_on_volumes() -> None:
    settings = tomllib.loads(SETTINGS)
    assert set(settings) <= {parameter.name for parameter in sync.params}
    mounts = {place["mountPath"] for place in POD["containers"][0]["volumeMounts"]}
    files = [value for value in settings.values() if str(value).startswith("/")]
    assert len(files) > 4
    assert [one for one in files if not any(one.startswith(place) for place in mounts)] == []


def test_the_pod_for_typing_is_the_nights_but_for_what_it_runs() -> None:
    typing = documents(FOLDER / "by-hand.yaml")["Pod"]["spec"]
    differs = {"containers", "terminationGracePeriodSeconds"}
    assert {name for name in POD if POD[name] != typing.get(name)} == differs
    (night,), (hand,) = POD["containers"], typing["containers"]
    assert {name for name in {**night, **hand} if night.get(name) != hand.get(name)} == {
        *("args", "command")
    }


def test_the_pod_with_its_ledger_in_a_database_differs_in_that_only() -> None:
    others = documents(FOLDER / "enroll-staff-postgres.yaml")
    assert set(others) == set(OBJECTS) - {"PersistentVolumeClaim"}
    settings, ours = (
        tomllib.loads(others["ConfigMap"]["data"]["enroll.toml"]),
        tomllib.loads(SETTINGS),
    )
    differs = {name for name in {**settings, **ours} if settings.get(name) != ours.get(name)}
    assert differs == {"ledger", "results", "summary", "metrics_file", "log_file"}
    job = copy.deepcopy(others["CronJob"])
    (container,) = pod_of(job)["containers"]
    service_file = container["env"].pop()
    database = {"name": "database", "mountPath": "/etc/enroll-database", "readOnly": True}
    (mount,) = [one for one in POD["containers"][0]["volumeMounts"] if one["name"] == "ledger"]
    container["volumeMounts"][container["volumeMounts"].index(database)] = mount
    volumes = pod_of(job)["volumes"]
    (place,) = [place for place, one in enumerate(volumes) if one["name"] == "database"]
    secret = volumes[place]["secret"]
    volumes[place] = next(one for one in POD["volumes"] if one["name"] == "ledger")
    assert job == CRON_JOB
    assert secret["defaultMode"] == 0o440
    example = documents(FOLDER / "database.example.yaml")["Secret"]
    assert secret["secretName"] == example["metadata"]["name"]
    parameters = Server.of(settings["ledger"]).parameters
    named = {service_file["value"], parameters["sslrootcert"]}
    assert named == {f"{database['mountPath']}/{key}" for key in example["stringData"]}
    assert f"[{parameters['service']}]" in example["stringData"]["service.conf"]
    assert str(ledger_named(settings["ledger"])) == settings["ledger"]


def test_a_copy_of_the_file_for_another_region_shares_no_name() -> None:
    (script,) = re.findall(r"^sed '(s/[^']*)' enroll-staff.yaml", PAGE, flags=re.MULTILINE)
    _, old, new, _ = script.split("/")
    text = (FOLDER / "enroll-staff.yaml").read_text()
    other = {one["kind"]: one for one in yaml.safe_load_all(text.replace(old, new))}
    names = {kind: one["metadata"]["name"] for kind, one in OBJECTS.items()}
    assert all(other[kind]["metadata"]["name"] != name for kind, name in names.items())
    pod = pod_of(other["CronJob"])
    (secret,) = [one["secret"] for one in pod["volumes"] if "secret" in one]
    assert secret["secretName"] == names["CronJob"].replace(old, new)
    volumes = [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"][2:4]]
    assert volumes[0] == other["PersistentVolumeClaim"]["metadata"]["name"]


def test_the_image_has_the_version_of_the_command_and_the_user_of_the_pods() -> None:
    build, image = stages()
    assert image.base == build.base
    assert image.values("LABEL")["org.opencontainers.image.version"] == __version__
    assert POD["containers"][0]["image"] == f"enroll:{__version__}"
    user = f"{POD['securityContext']['runAsUser']}:{POD['securityContext']['runAsGroup']}"
    assert image.last("USER").rest == user
    for name in ("ENTRYPOINT", "CMD"):
        assert image.last(name).rest.startswith("["), f"{name} would need a shell"
    assert image.last("ENTRYPOINT").words[0].rpartition("/")[0] in image.values("ENV")["PATH"]


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    copied = {
        word
        for one in stages()
        for step in one.steps
        for word in step.words[:-1]
        if step.name == "COPY" and not step.source
    }
    assert [name for name in copied if not (ROOT / name).exists()] == []
    seen = set(seen_by_the_build())
    assert [one for one in copied if not any(Path(one).match(name) for name in seen)] == []
    assert [one for one in seen if not any(Path(name).match(one) for name in copied)] == []


def test_what_the_build_copies_makes_the_whole_wheel(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    sources.mkdir()
    for step in stages()[0].steps:
        if step.name == "COPY":
            *copied, target = step.words
            copy_into(sources / target, copied)
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=sources,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = set(ZipFile(wheel).namelist())
    assert {
        f"enroll/{one.relative_to(ROOT / 'enroll')}" for one in (ROOT / "enroll").rglob("*.py")
    } <= held
    assert any(name.endswith("share/man/man1/enroll-run.1") for name in held)


needs_pods = pytest.mark.skipif(bool(pods.missing), reason=pods.missing)


@pytest.fixture
def cluster(box: Sandbox, tmp_path: Path) -> Cluster:
    """The objects of docs/container and three people, for pods of this machine's Python."""
    return staffed(Cluster(pods.this_system(), tmp_path), box)


def staffed(cluster: Cluster, box: Sandbox, people: int = 3) -> Cluster:
    """A cluster with the settings, the secret and the staff, whose pods call the stand-in."""
    cluster.write("ConfigMap", "enroll-staff", {"enroll.toml": SETTINGS})
    cluster.write("Secret", "enroll-staff", keys(box))
    staff = cluster.claim("staff-photos")
    (staff / "photos").mkdir()
    rows = ["user_id,user_data,image"]
    for number in range(people):
        (staff / "photos" / f"{number}.jpg").write_bytes(portrait(number))
        rows.append(f"person{number},,{number}.jpg")
    (staff / "staff.csv").write_text("\n".join(rows) + "\n")
    return replace(cluster, environ={"ENROLL_ENDPOINT": box.endpoint, **OF_A_SERVICE})


def keys(box: Sandbox) -> dict[str, str]:
    """The keys of the secret."""
    secret = documents(FOLDER / "secret.example.yaml")["Secret"]["stringData"]
    assert set(secret) == {"api_key", "api_secret"}
    return {"api_key": box.api_key, "api_secret": box.api_secret}


def summary(cluster: Cluster) -> dict[str, Any]:
    """The figures of the last night."""
    found: dict[str, Any] = json.loads(
        (cluster.claim("enroll-staff-ledger") / "staff.json").read_text()
    )
    return found


@pytest.mark.thorough
@needs_pods
def test_a_night_in_a_pod_says_nothing_and_leaves_its_files_on_the_volume(
    box: Sandbox, cluster: Cluster
) -> None:
    ended = cluster.run(POD)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert len(box.faces("staff")) == 3
    assert {path.name for path in cluster.claim("enroll-staff-ledger").iterdir()} == {
        *("staff.sqlite", "staff.sqlite.lock", "staff.results.csv"),
        *("staff.json", "staff.prom", "staff.log"),
    }
    ended = cluster.run(POD)  # after the group has been given all files
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert summary(cluster)["calls"]["add"] == 0


@pytest.mark.thorough
@needs_pods
def test_sigterm_ends_the_first_process_of_a_container_gracefully(
    box: Sandbox, cluster: Cluster
) -> None:
    box.latency = 0.4
    with cluster.pod(POD) as pod:
        assert box.wait_count("add", 1, 30.0)
        pod.send(signal.SIGTERM)
        ended = pod.ended()
    assert ended.code == ExitCode.TERMINATED
    assert '"event": "signal"' in ended.err
    rows = summary(cluster)["rows"]
    assert (rows["in_doubt"], rows["enrolled"]) == (0, len(box.faces("staff")))


@pytest.mark.thorough
@needs_pods
def test_sigterm_ends_it_while_its_modules_are_loading(cluster: Cluster) -> None:
    python, *enroll = cluster.image.entrypoint
    image = replace(cluster.image, entrypoint=(python, "-X", "importtime", *enroll))
    with replace(cluster, image=image).pod(POD) as pod:
        assert pod.process.stderr is not None
        next(line for line in pod.process.stderr if line.split()[-1] == "click")
        pod.send(signal.SIGTERM)
        assert pod.ended().code == ExitCode.TERMINATED
