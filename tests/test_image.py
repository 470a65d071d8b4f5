"""The container's image, and nights in Kubernetes with processes as pods of it."""

from __future__ import annotations

import copy
import json
import os
import shutil
import signal
import ssl
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import containerfile
import pods
import pytest
from pods import Cluster, Image, documents
from test_container import FOLDER, POD, commands_of_the_page, keys, staffed, summary

from enroll.errors import ExitCode
from enroll.sandbox import Sandbox

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(bool(pods.missing), reason=pods.missing),
    pytest.mark.skipif(
        not (shutil.which("mmdebstrap") and shutil.which("buildah")),
        reason="needs mmdebstrap and buildah",
    ),
]

DEBIAN = "trixie"
PACKAGES = ("ca-certificates", "netbase", "python3", "python3-venv", "tzdata")
"""The base image is the same Debian with another build of the same Python."""


CERTIFICATES = "usr/local/share/certificates.crt"
"""Where pip finds the certificates that this machine trusts."""


UNREACHABLE = ("NewConnectionError", "ConnectTimeout", "NameResolutionError", "SSLError")
"""What pip says where a build cannot reach its index."""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image that Buildah makes of the Containerfile."""
    with TemporaryDirectory(prefix="enroll-image-", dir="/var/tmp") as folder:
        yield from built(Path(folder))


def built(folder: Path) -> Iterator[Image]:
    base = folder / "base"
    assert DEBIAN in containerfile.stages()[0].base
    packages = f"--include={','.join(PACKAGES)}"
    said_or_skip("mmdebstrap", "--quiet", "--variant=apt", packages, DEBIAN, base)
    trusted = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or ""
    shutil.copy(trusted, base / CERTIFICATES)

    def buildah(*words: object, run: Callable[..., str] = said) -> str:
        # A driver without mounts of its own also works within a container.
        places = ("--root", folder / "store", "--runroot", folder / "running")
        return run("buildah", *places, "--storage-driver=vfs", *words)

    empty = buildah("from", "scratch", run=said_or_skip)
    buildah("copy", "--quiet", empty, base, "/")
    buildah("config", f"--env=PIP_CERT=/{CERTIFICATES}", empty)
    buildah("commit", "--quiet", empty, "localhost/base")
    index = [f"--build-arg=PIP_INDEX_URL={one}" for one in [os.environ.get("PIP_INDEX_URL")] if one]
    places = ("--file", containerfile.CONTAINERFILE, "--tag=localhost/enroll", *index)
    options = ("--isolation=chroot", "--network=host", "--pull-never", *places)
    try:
        buildah("build", "--build-arg=BASE=localhost/base", *options, containerfile.ROOT)
    except AssertionError as error:
        if any(one in str(error) for one in UNREACHABLE):
            pytest.skip(f"no packages can be had in a build here: {str(error)[-1000:]}")
        raise
    container = buildah("from", "--pull-never", "localhost/enroll")
    config = json.loads(buildah("inspect", container))["OCIv1"]["config"]
    yield Image(
        root=Path(buildah("mount", container)),
        entrypoint=config["Entrypoint"],
        environ=dict(pair.split("=", 1) for pair in config["Env"]),
    )
    buildah("umount", container)


def said_or_skip(*words: object) -> str:
    """What a program prints; where it fails, this machine lacks something."""
    try:
        return said(*words)
    except AssertionError as error:
        pytest.skip(str(error)[:1000])


def said(*words: object) -> str:
    """What a program prints."""
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


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
        "import dlib, jinja2, obstore, openpyxl, pillow_heif, prometheus_client, psycopg, pyvips;"
        "from enroll.photos.bounds import LIBVIPS_INSTALLED; assert LIBVIPS_INSTALLED"
    )
    ended = replace(cluster, image=python).run(POD, script)
    assert (ended.code, ended.err) == (0, "")
