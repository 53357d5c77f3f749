"""Runs the containers of a DaemonSet's manifest with runc: its users, capabilities, mounts, seccomp, on this machine's files.

What a kubelet and a runtime would make of the manifest is made of it here, and nothing else is given: one network
namespace for the pod, the host's pids, a read-only root that holds the system's programs and our code.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.machine import wait_for

ROOT = Path(__file__).parents[2]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
Document = dict[str, Any]


def documents(text: str) -> list[Document]:
    return [each for each in yaml.safe_load_all(text) if each]


def find(manifest: Sequence[Document], kind: str, name: str = "") -> Document:
    (found,) = (
        each
        for each in manifest
        if each["kind"] == kind and name in ("", each["metadata"]["name"])
    )
    return found


@dataclass
class Pod:
    """One pod of a DaemonSet. Made in `folder`, which must be short and open to everybody."""

    manifest: Sequence[Document]
    folder: Path
    netns: str
    config: Mapping[str, object]  # merged over tripshark.yaml of both ConfigMaps
    secrets: Mapping[str, str]
    runtime_directory: Path
    files: Mapping[str, str] = field(default_factory=dict)  # beside tripshark.yaml
    seccomp: Mapping[str, Document] | None = (
        None  # by container name, an OCI profile for its capabilities
    )
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spec = find(self.manifest, "DaemonSet")["spec"]["template"]["spec"]
        self.volumes = {each["name"]: self._volume(each) for each in self.spec["volumes"]}

    def container(self, name: str) -> Document:
        (found,) = (
            each
            for each in [*self.spec.get("initContainers", ()), *self.spec["containers"]]
            if each["name"] == name
        )
        return dict(found)

    def capabilities(self, name: str) -> list[str]:
        """Those it adds to none, without `CAP_`."""
        return list(self.container(name)["securityContext"]["capabilities"].get("add", ()))

    # ---- volumes ---------------------------------------------------------------------------------------------

    def _volume(self, volume: Document) -> Path:
        place = self.folder / "volumes" / volume["name"]
        group = int(self.spec["securityContext"]["fsGroup"])
        match volume:
            case {"hostPath": {"path": "/run/netns"}}:
                return Path("/run/netns")
            case {"hostPath": _} if volume["name"] == "runtime":
                return self.runtime_directory
            case {"hostPath": _}:  # as DirectoryOrCreate makes it
                place.mkdir(parents=True, mode=0o755)
            case {"emptyDir": _}:
                place.mkdir(parents=True)
                os.chown(place, 0, group)
                place.chmod(0o2777)
            case {"configMap": {"name": name}}:
                place.mkdir(parents=True)
                data = find(self.manifest, "ConfigMap", name)["data"]
                settings = _merged(yaml.safe_load(data["tripshark.yaml"]), self.config)
                (place / "tripshark.yaml").write_text(yaml.safe_dump(settings))
                for file, text in self.files.items():
                    (place / file).write_text(text)
            case {"secret": {"items": items}}:
                place.mkdir(parents=True)
                for each in items:
                    _group_file(place / each["path"], self.secrets[each["key"]], group)
            case {"projected": _}:
                place.mkdir(parents=True)
                _group_file(place / "token", "a-token", group)
            case _:
                raise AssertionError(f"a volume of an unknown kind: {volume}")
        return place

    # ---- containers ------------------------------------------------------------------------------------------

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """The container in the foreground; its output is in `log(name)`."""
        bundle = self.folder / name
        (bundle / "rootfs").mkdir(parents=True)
        (bundle / "config.json").write_text(json.dumps(self._oci(name, bundle / "rootfs")))
        identifier = f"ts-deploy-{os.getpid()}-{len(self.started)}-{name}"
        with self.log(name).open("wb") as log:
            self.started[identifier] = subprocess.Popen(
                [*self._runc(), "run", "--bundle", str(bundle), identifier],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.started[identifier]

    def execute(
        self, name: str, *argv: str, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """`tripshark …` in a container that runs, as `kubectl exec` would start it."""
        (identifier,) = (each for each in self.started if each.endswith(f"-{name}"))
        given = [word for pair in environment.items() for word in ("--env", "=".join(pair))]
        return subprocess.run(
            [*self._runc(), "exec", *given, identifier, *self._tripshark(), *argv],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    @staticmethod
    def _tripshark() -> list[str]:
        return [sys.executable, "-P", "-m", "tripshark"]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def said(self, name: str) -> list[Document]:
        """What the container's supervisor told on its standard output."""
        lines = self.log(name).read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"event"')]

    def wait_ready(self, name: str, program: str, seconds: float = 60) -> Document:
        def ready() -> Document | None:
            for each in self.said(name):
                assert each["event"] != "failed", each
                if each["event"] == "ready" and each["program"] == program:
                    return each
            return None

        try:
            return dict(wait_for(ready, f"{name}: {program} is ready", seconds) or {})
        except AssertionError as problem:
            raise AssertionError(f"{problem}\n{self.log(name).read_text()[-3000:]}") from problem

    def close(self) -> None:
        """All are asked to end, as a kubelet does it; at last by force."""
        for identifier in self.started:
            runc = [*self._runc(), "kill", identifier, "TERM"]
            subprocess.run(runc, capture_output=True, check=False)
        for identifier, process in self.started.items():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            runc = [*self._runc(), "delete", "--force", identifier]
            subprocess.run(runc, capture_output=True, check=False)
            process.wait(60)

    def _runc(self) -> list[str]:
        return ["runc", "--root", str(self.folder / "runc")]

    def _oci(self, name: str, rootfs: Path) -> Document:
        container = self.container(name)
        security = container["securityContext"]
        kept = [f"CAP_{each}" for each in security["capabilities"].get("add", ())]
        assert security["capabilities"]["drop"] == ["ALL"]
        uid = int(security["runAsUser"])
        # the kubelet's way: root holds what was added; others hold it in no set that is in effect
        held = kept if uid == 0 else []
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/nonexistent", "LANG=C.UTF-8"]
        environment += [self._environment(each) for each in container.get("env", ())]
        argv = [*self._tripshark(), *container.get("args", ())]
        if "command" in container:
            argv = [*container["command"], *container["args"]]
        return {
            "ociVersion": "1.0.2",
            "root": {"path": str(rootfs), "readonly": security["readOnlyRootFilesystem"]},
            "hostname": "a-pod",
            "process": {
                "cwd": "/",
                "args": argv,
                "env": environment,
                "user": {
                    "uid": uid,
                    "gid": int(security["runAsGroup"]),
                    "additionalGids": [int(self.spec["securityContext"]["fsGroup"])],
                },
                "capabilities": {
                    "bounding": kept,
                    "effective": held,
                    "permitted": held,
                    "inheritable": [],
                    "ambient": [],
                },
                "noNewPrivileges": security.get("allowPrivilegeEscalation") is False,
            },
            "mounts": self._mounts(container, rootfs),
            "linux": {
                "rootfsPropagation": "rslave",
                "namespaces": [
                    {"type": "mount"},
                    {"type": "ipc"},
                    {"type": "uts"},
                    {"type": "network", "path": f"/run/netns/{self.netns}"},
                    *([] if self.spec["hostPID"] else [{"type": "pid"}]),
                ],
                "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
                **({"seccomp": self.seccomp[name]} if self.seccomp else {}),
            },
        }

    def _environment(self, given: Document) -> str:
        match given:
            case {"value": value}:
                pass
            case {"valueFrom": {"secretKeyRef": {"key": key}}}:
                value = self.secrets[key]
            case {"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}:
                value = "node-1"
            case _:
                raise AssertionError(f"unknown: {given}")
        return f"{given['name']}={value}"

    def _mounts(self, container: Document, rootfs: Path) -> list[Document]:
        mounts: list[Document] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/sys",
                "type": "sysfs",
                "source": "sysfs",
                "options": ["nosuid", "noexec", "nodev", "ro"],
            },
        ]
        etc = rootfs.parent / "etc"
        etc.mkdir()
        (etc / "tripshark").mkdir()
        people = "root:x:0:0::/:/bin/sh\ntripshark:x:61803:61803::/:/bin/sh\n"
        (etc / "passwd").write_text(people + "tripshark-analyst:x:61804:61804::/:/bin/sh\n")
        groups = "root:x:0:\ntripshark:x:61803:\ntripshark-analyst:x:61804:\n"
        (etc / "group").write_text(groups)
        for file in ("ld.so.cache", "localtime"):
            if Path("/etc", file).exists():
                shutil.copy(Path("/etc", file), etc / file)
        given = [(str(etc), "/etc"), *((each, each) for each in SYSTEM if Path(each).exists())]
        mounts += [_bind(source, place, ["rbind", "ro"]) for source, place in given]
        for each in container["volumeMounts"]:
            options = ["rbind", "ro" if each.get("readOnly") else "rw"]
            # a runtime's own default is rprivate
            into = {"HostToContainer": "rslave", None: "rprivate"}[each.get("mountPropagation")]
            mounts.append(
                _bind(str(self.volumes[each["name"]]), each["mountPath"], [*options, into])
            )
        # after the volumes: a checkout below /tmp is not hidden by the container's own /tmp
        mounts += [_bind(each, each, ["rbind", "ro"]) for each in _code()]
        for each in mounts:
            if not each["destination"].startswith("/etc/"):
                (rootfs / each["destination"].lstrip("/")).mkdir(parents=True, exist_ok=True)
            elif each["type"] == "bind":
                (etc / each["destination"].removeprefix("/etc/")).mkdir(
                    parents=True, exist_ok=True
                )
        # /etc/tripshark is a volume; what is mounted below it needs a place in it
        for inner in container["volumeMounts"]:
            for outer in container["volumeMounts"]:
                below = inner["mountPath"].removeprefix(outer["mountPath"] + "/")
                if below != inner["mountPath"]:
                    (self.volumes[outer["name"]] / below).mkdir(exist_ok=True)
        return mounts


def _code() -> list[str]:
    """Where our program, its rules and its Python lie, where they are not the system's."""
    folders = {sys.prefix, sys.base_prefix, str(ROOT / "src"), str(ROOT / "rules")}
    folders |= {each for each in sys.path if each.endswith(("site-packages", "/src"))}
    outer = [each for each in folders if not any(each.startswith(f"{o}/") for o in folders)]
    return sorted(each for each in outer if not each.startswith("/usr/") and Path(each).is_dir())


def _bind(source: str, place: str, options: list[str]) -> Document:
    return {"destination": place, "type": "bind", "source": source, "options": options}


def _group_file(path: Path, text: str, group: int) -> None:
    path.write_text(text)
    os.chown(path, 0, group)
    path.chmod(0o440)


def _merged(into: Document, other: Mapping[str, object]) -> Document:
    for key, value in other.items():
        mine = into.get(key)
        if isinstance(mine, dict) and isinstance(value, Mapping):
            _merged(mine, value)
        else:
            into[key] = value
    return into
