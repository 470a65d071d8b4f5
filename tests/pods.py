"""Pods as processes: what kubelet and a container's engine do with a pod's specification.

The container's root is a folder seen through an overlay. Its process is number 1 of a PID
namespace and has the specification's user, group, volumes and environment, no capabilities, and no
shell. Volumes lie in a folder, as kubelet writes them: config maps and secrets behind the link
`..data`, with the modes that `defaultMode` and `fsGroup` lead to; the files of claims belong to the
group at every mount. Needs Linux, root and unshare.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

import yaml
from real_command import SECONDS, Done

missing = (
    "needs Linux, root and unshare"
    if sys.platform != "linux" or os.geteuid() or not shutil.which("unshare")
    else ""
)
"""Why there are no pods here; "" where there are."""

_BECOME = """
import ctypes, json, os, socket, subprocess, sys
pod = json.loads(sys.argv[1])
def mount(*words):
    subprocess.run(["mount", *words], check=True)
work, root = pod["work"], pod["work"] + "/root"
mount("-t", "tmpfs", "none", work)
for name in ("upper", "overlay", "root"):
    os.mkdir(f"{work}/{name}")
layers = f"lowerdir={pod['root']},upperdir={work}/upper,workdir={work}/overlay"
mount("-t", "overlay", "none", "-o", layers, root)
for folder in pod["opened"]:
    os.chmod(root + folder, 0o755)
for shell in ("sh", "dash", "bash", "rbash"):
    if os.path.lexists(f"{root}/usr/bin/{shell}"):
        os.remove(f"{root}/usr/bin/{shell}")
for place in pod["mounts"]:
    os.makedirs(root + place["path"], exist_ok=True)
if pod["read_only"]:
    mount("-o", "remount,ro", root)
mount("-t", "proc", "none", root + "/proc")
mount("--rbind", "/dev", root + "/dev")
for place in pod["mounts"]:
    mount("--bind", place["source"], root + place["path"])
    if place["read_only"]:
        mount("-o", "remount,bind,ro", root + place["path"])
socket.sethostname(pod["environ"]["HOSTNAME"])
os.chroot(root)
os.chdir("/")
os.umask(0o022)
libc = ctypes.CDLL(None)
for capability in range(64):
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.setgroups([pod["fs_group"]])
os.setresgid(*[pod["group"]] * 3)
os.setresuid(*[pod["user"]] * 3)
libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
os.execve(pod["words"][0], pod["words"], pod["environ"])
"""
"""A program that becomes the first process of a container."""


def documents(path: Path) -> dict[str, Any]:
    """The objects in a file of Kubernetes, by their kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))}


def pod_of(cron_job: Mapping[str, Any]) -> dict[str, Any]:
    """The specification of a CronJob's pods."""
    spec: dict[str, Any] = cron_job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return spec


@dataclass(frozen=True)
class Image:
    """A container's image: its root, what it runs, and its environment."""

    root: Path
    entrypoint: Sequence[str]
    environ: Mapping[str, str]
    opened: Sequence[str] = ()
    """Folders that everybody may enter, whatever their mode is."""
    added: Mapping[str, Path] = field(default_factory=dict)
    """Folders from elsewhere."""


def this_system() -> Image:
    """The files and the Python of the tests as an image."""
    above = Path(sys.executable).resolve().parents
    return Image(
        root=Path("/"),
        entrypoint=("/opt/enroll/bin/python", "-m", "enroll"),
        environ={"PATH": "/opt/enroll/bin:/usr/bin", "PYTHONPATH": "/opt/sources"},
        opened=[str(folder) for folder in above if not folder.stat().st_mode & 1],
        added={"/opt/enroll": Path(sys.prefix), "/opt/sources": Path(__file__).parent.parent},
    )


@dataclass(frozen=True)
class Pod:
    """A pod that has been started."""

    process: subprocess.Popen[str]
    name: str

    def send(self, number: int) -> None:
        """Send a signal to its first process, as kubelet does."""
        process = self.process.pid
        (first,) = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        os.kill(int(first), number)

    def ended(self) -> Done:
        """How it ended, in the end."""
        out, err = self.process.communicate(timeout=SECONDS)
        code = self.process.returncode
        return Done(code if code >= 0 else 128 - code, out, err)


@dataclass(frozen=True)
class Cluster:
    """Pods of one image, with their volumes in `folder`. `environ` is what all get besides."""

    image: Image
    folder: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def claim(self, name: str) -> Path:
        """The folder of a persistent volume."""
        return self._made(f"claim-{name}")

    def write(self, kind: str, name: str, files: Mapping[str, str]) -> None:
        """Write a config map or secret, or rotate it: all its files change at once."""
        folder = self._made(f"{kind}-{name}")
        old = (folder / "..data").resolve() if (folder / "..data").exists() else None
        fresh = folder / f"..2026_11_30_01_15_00.{next(self._numbers)}"
        fresh.mkdir()
        for key, text in files.items():
            (fresh / key).write_text(text, encoding="utf-8")
            if old:
                shutil.copystat(old / key, fresh / key)
                os.chown(fresh / key, 0, (old / key).stat().st_gid)
            else:
                (folder / key).symlink_to(f"..data/{key}")
        (folder / "..data_tmp").symlink_to(fresh.name)
        (folder / "..data_tmp").replace(folder / "..data")
        if old:
            shutil.rmtree(old)

    @contextmanager
    def pod(self, spec: Mapping[str, Any], *args: str) -> Iterator[Pod]:
        """Start the container of a pod's specification, with other arguments if given; it is killed
        in the end."""
        (container,) = spec["containers"]
        security = {**spec["securityContext"], **container["securityContext"]}
        number = next(self._numbers)
        volumes = {one["name"]: one for one in spec["volumes"]}
        name = f"pod-{number}"
        mounts = [
            self._mount(place, volumes[place["name"]], security["fsGroup"])
            for place in container["volumeMounts"]
        ]
        mounts += [
            {"source": str(source), "path": path, "read_only": True}
            for path, source in self.image.added.items()
        ]
        pod = {
            "root": str(self.image.root),
            "work": str(self._made(f"work-{number}")),
            "opened": self.image.opened,
            "mounts": mounts,
            "read_only": security["readOnlyRootFilesystem"],
            "user": security["runAsUser"],
            "group": security["runAsGroup"],
            "fs_group": security["fsGroup"],
            "words": [*self.image.entrypoint, *(args or container["args"])],
            "environ": {
                **self.image.environ,
                "HOME": "/",
                "HOSTNAME": name,
                **self.environ,
                **{one["name"]: one["value"] for one in container["env"]},
            },
        }
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--"]
        process = subprocess.Popen(
            [*words, sys.executable, "-I", "-c", _BECOME, json.dumps(pod)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        stuck = Timer(4 * SECONDS, process.kill)
        stuck.daemon = True
        stuck.start()
        with process:
            try:
                yield Pod(process, name)
            finally:
                stuck.cancel()
                process.kill()

    def run(self, spec: Mapping[str, Any], *args: str) -> Done:
        """Run a pod to its end, with other arguments if given."""
        with self.pod(spec, *args) as pod:
            return pod.ended()

    def _mount(
        self, place: Mapping[str, Any], volume: Mapping[str, Any], group: int
    ) -> dict[str, Any]:
        """Where a volume goes, once kubelet has set it up for the pod's group."""
        read_only = place.get("readOnly", False)
        if "configMap" in volume:
            source = self._made(f"ConfigMap-{volume['configMap']['name']}")
            _hand_over(source, group, mode=volume["configMap"].get("defaultMode", 0o644))
        elif "secret" in volume:
            source = self._made(f"Secret-{volume['secret']['secretName']}")
            _hand_over(source, group, mode=volume["secret"].get("defaultMode", 0o644))
        elif "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]
            source = self.claim(claim["claimName"])
            if not claim.get("readOnly", False):
                _share(source, group)
            read_only = read_only or claim.get("readOnly", False)
        else:
            assert "emptyDir" in volume, volume
            source = self._made(f"emptyDir-{next(self._numbers)}")
            _share(source, group)
            source.chmod(0o2777)
        return {"source": str(source), "path": place["mountPath"], "read_only": read_only}

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return folder


def _hand_over(folder: Path, group: int, *, mode: int) -> None:
    """The modes of a config map or secret: the group may read it."""
    folder.chmod(0o3777)
    os.chown(folder, 0, group)
    snapshot = (folder / "..data").resolve()
    snapshot.chmod(0o2755)
    os.chown(snapshot, 0, group)
    for file in snapshot.iterdir():
        os.chown(file, 0, group)
        file.chmod(mode | 0o440)


def _share(folder: Path, group: int) -> None:
    """The modes of a volume that may be written: the group may read and write all of it."""
    for one in (folder, *folder.rglob("*")):
        found = one.stat()
        os.chown(one, -1, group)
        one.chmod(found.st_mode & 0o7777 | (0o2770 if one.is_dir() else 0o660))
