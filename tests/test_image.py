"""The container's image, built without an engine, and nights in Kubernetes as processes."""

from __future__ import annotations

import copy
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import containerfile
import pods
import pytest
from pods import Cluster, Image, documents
from test_container import FOLDER, POD, commands_of_the_page, keys, staffed, summary

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(bool(pods.missing), reason=pods.missing),
    pytest.mark.skipif(shutil.which("mmdebstrap") is None, reason="needs mmdebstrap"),
]

DEBIAN = "trixie"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
"""The base image is the same Debian with another build of the same Python."""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image that the Containerfile makes."""
    folder = tmp_path_factory.mktemp("image")
    base = folder / "base"
    assert DEBIAN in containerfile.stages()[0].base
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}", DEBIAN, base],
        check=True,
        timeout=600,
    )
    yield containerfile.build(base, folder)
    shutil.rmtree(folder)


@pytest.fixture
def cluster(image: Image, box: Sandbox, tmp_path: Path) -> Cluster:
    """Pods of the image, and a staff of six."""
    return staffed(Cluster(image, tmp_path), box, people=6)


def added_once(box: Sandbox) -> bool:
    """Whether the library has everybody exactly once."""
    return Counter(face.user_id for face in box.faces("staff")) == {
        f"person{number}": 1 for number in range(6)
    }


def test_the_image_holds_compiled_code_and_nothing_that_installs(image: Image) -> None:
    (packages,) = image.root.glob("opt/enroll/lib/python3.*/site-packages")
    names = {path.name for path in packages.iterdir()}
    assert {"enroll", "openpyxl", "pillow_heif", "prometheus_client", "pyvips"} <= names
    assert names & {"pip", "setuptools", "hatchling", "pytest", "pyarrow"} == set()
    modules = list((packages / "enroll").rglob("*.py"))
    assert modules
    assert [one for one in modules if not [*one.parent.glob(f"__pycache__/{one.stem}.*.pyc")]] == []
    version = containerfile.stages()[0].base.partition("python:")[2].partition("-")[0]
    assert packages.parent.name == f"python{version}"


def test_every_command_of_the_page_runs_in_a_pod(box: Sandbox, cluster: Cluster) -> None:
    for words in commands_of_the_page():
        ended = cluster.run(documents(FOLDER / "by-hand.yaml")["Pod"]["spec"], *words)
        # Nobody is in doubt, so there is nothing to resolve.
        wanted = {ExitCode.USAGE} if words[0] == "resolve" else {ExitCode.DONE}
        assert ended.code in wanted, (words, ended)
    assert added_once(box)


def test_a_second_pod_keeps_out_and_a_third_settles_what_a_kill_left(
    box: Sandbox, cluster: Cluster
) -> None:
    night = (*POD["containers"][0]["args"], "--timeout=15", "--settle-after=0")
    box.latency = 6.0  # in which the second starts; the opening calls take it, too
    with cluster.pod(POD, *night) as first:
        assert box.wait_count("add", 1, 60.0)
        second = cluster.run(POD, *night)
        assert (second.code, first.name in second.err) == (ExitCode.LEDGER_BUSY, True), second
        first.send(signal.SIGKILL)
        first.ended()
    box.latency = 0.0
    assert box.wait_idle(30.0)
    assert cluster.run(POD, *night).code == ExitCode.DONE
    assert added_once(box)


def test_a_pod_that_is_deleted_is_continued_by_the_next(box: Sandbox, cluster: Cluster) -> None:
    box.latency = 0.5
    with cluster.pod(POD) as pod:
        assert box.wait_count("add", 1, 30.0)
        pod.send(signal.SIGTERM)
        assert pod.ended().code == ExitCode.TERMINATED
    assert summary(cluster)["rows"]["in_doubt"] == 0
    assert cluster.run(POD).code == ExitCode.DONE
    assert added_once(box)


def test_a_secret_is_rotated_while_a_pod_uses_it(box: Sandbox, cluster: Cluster) -> None:
    box.latency = 0.5
    with cluster.pod(POD) as pod:
        assert box.wait_count("add", 1, 30.0)
        box.rotate_secret("the next secret")
        assert box.wait_count("add", 3, 30.0)  # refused with the old one
        cluster.write("Secret", "enroll-staff", keys(box))
        ended = pod.ended()
    assert ended.code == ExitCode.DONE, ended
    assert added_once(box)


def test_a_pod_says_what_its_volumes_lack(cluster: Cluster) -> None:
    loose = {**POD, "volumes": copy.deepcopy(POD["volumes"])}
    del loose["volumes"][1]["secret"]["defaultMode"]
    ended = cluster.run(loose)
    assert (ended.code, "defaultMode: 0440" in ended.err) == (ExitCode.USAGE, True), ended
    shutil.rmtree(cluster.claim("staff-photos") / "photos")
    ended = cluster.run(POD)
    assert (ended.code, "/srv/staff/photos" in ended.err) == (ExitCode.GUARD, True), ended


def test_the_extras_of_the_image_can_be_loaded(image: Image, cluster: Cluster) -> None:
    python = replace(image, entrypoint=("/opt/enroll/bin/python3", "-c"))
    script = (
        "import dlib, jinja2, obstore, openpyxl, pillow_heif, prometheus_client, pyvips;"
        "from enroll.photos.bounds import LIBVIPS_INSTALLED; assert LIBVIPS_INSTALLED"
    )
    ended = replace(cluster, image=python).run(POD, script)
    assert (ended.code, ended.err) == (0, "")
