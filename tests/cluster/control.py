"""A real control plane for tests: etcd and kube-apiserver in a private folder, on loopback, with RBAC.

`real_api` (fixture, one for the session) gives a `ControlPlane`:

    plane.login()                                   # the administrator; for KubeApi(…)
    plane.kubeconfig                                # the same as a file, for kubectl
    plane.login("alice", groups=["dev"])            # anybody else; may nothing until a Role says so
    plane.service_account("tripshark", "node")      # a folder as kubelet mounts it: token, ca.crt, namespace
    plane.call("POST", path, body)                  # as the administrator; blocking
    plane.apply(yaml_text_or_objects)               # server-side apply
    plane.grant("alice", rules, namespace="shop")   # a Role and its binding (a ClusterRole without namespace); returns undo()
    with plane.namespace() as name: …               # deleted with everything in it that tests make
    plane.kill(); plane.start(); plane.compact()    # as only a server of our own can: `plane.own`

Where KUBECONFIG is set that cluster is used instead, other users by impersonation, and what needs a server of our own is
skipped. Programs come from $TRIPSHARK_KUBE_BIN and etcd from Debian; else tests skip and say so.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.processes import killed_with_us
from tripshark.cluster.login import Login, kubeconfig

Json = dict[str, Any]

# taken out of the environment: the product, which tests start, takes every TRIPSHARK_… for a setting
BIN = Path(os.environ.pop("TRIPSHARK_KUBE_BIN", "") or os.devnull)  # nothing lies below that
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_PLURALS = {"NetworkPolicy": "networkpolicies", "Endpoints": "endpoints"}


class Answer(Exception):
    """The server said no."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{code}: {words}")
        self.code = code


def why_not() -> str:
    """Why there is no control plane here; "" when there is."""
    if os.environ.get("KUBECONFIG"):
        return ""
    if not (BIN / "kube-apiserver").exists():
        return "no cluster: neither KUBECONFIG nor TRIPSHARK_KUBE_BIN with kube-apiserver is given"
    if shutil.which("etcd") is None:
        return "no cluster: etcd is not installed (Debian's etcd-server)"
    return ""


class Plane:
    """A cluster as its administrator sees it."""

    own = False

    def __init__(self, folder: Path, config: Path) -> None:
        self.folder = folder
        self.kubeconfig = config
        self.content: Json = yaml.safe_load(config.read_text())
        self._users: dict[tuple[str, ...], Path] = {}
        self._known: tuple[Login, ssl.SSLContext | None] | None = None

    # ---------------------------------------------------------------- who

    @property
    def url(self) -> str:
        return kubeconfig(self.kubeconfig).server

    def login(self, name: str = "", groups: Sequence[str] = ()) -> Login:
        return kubeconfig(self.user(name, groups) if name else self.kubeconfig)

    def user(self, name: str, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig of somebody else."""
        key = (name, *groups)
        if key not in self._users:
            content = json.loads(json.dumps(self.content))
            content["users"] = [{"name": "u", "user": self._user(content, name, groups)}]
            for each in content["contexts"]:
                each["context"]["user"] = "u"
            path = self.folder / f"{len(self._users)}-{uuid.uuid4().hex[:6]}.kubeconfig"
            path.write_text(yaml.safe_dump(content))
            self._users[key] = path
        return self._users[key]

    def _user(self, content: Json, name: str, groups: Sequence[str]) -> Json:
        context = next(
            each["context"]
            for each in self.content["contexts"]
            if each["name"] == self.content["current-context"]
        )
        own = next(
            each["user"] for each in self.content["users"] if each["name"] == context["user"]
        )
        return {**own, "as": name, "as-groups": [*groups, "system:authenticated"]}

    def service_account(self, namespace: str, name: str, *, seconds: int = 3600) -> Path:
        """A folder as a pod has it; a new token each time."""
        base = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self.ensure(base, {"metadata": {"name": name}})
        spec = {"spec": {"expirationSeconds": seconds}}
        token = self.call("POST", f"{base}/{name}/token", spec)["status"]["token"]
        folder = self.folder / f"sa-{namespace}-{name}"
        folder.mkdir(exist_ok=True)
        self._write(folder / "token", token)
        self._write(folder / "namespace", namespace)
        authority = kubeconfig(self.kubeconfig).trust
        assert authority is not None
        given = authority.authority
        self._write(
            folder / "ca.crt", given.read_text() if isinstance(given, Path) else given or ""
        )
        return folder

    @staticmethod
    def _write(path: Path, text: str) -> None:
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(path)

    # ---------------------------------------------------------------- what the administrator does

    def call(
        self, method: str, path: str, body: object = None, kind: str = "application/json"
    ) -> Json:
        """Raises `Answer`; retried for a while when the server is away or asks for patience."""
        login, context = self._admin()
        headers = {
            "Accept": "application/json",
            "Content-Type": kind,
            **self._authorization(login),
        }
        deadline = time.monotonic() + 30
        while True:
            request = urllib.request.Request(
                login.server + path,
                data=None if body is None else json.dumps(body).encode(),
                headers=headers,
                method=method,
            )
            try:
                with urllib.request.urlopen(request, timeout=30, context=context) as answer:
                    found: Json = json.loads(answer.read())
                    return found
            except urllib.error.HTTPError as problem:
                with problem:
                    words = problem.read().decode(errors="replace")
                if problem.code not in (429, 500, 503) or time.monotonic() > deadline:
                    with contextlib.suppress(ValueError, KeyError, TypeError):
                        words = json.loads(words)["message"]
                    raise Answer(problem.code, words) from None
            except (urllib.error.URLError, ConnectionError, ssl.SSLError, TimeoutError):
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def _admin(self) -> tuple[Login, ssl.SSLContext | None]:
        """Read once: making a context takes longer than many a request."""
        if self._known is None:
            login = self.login()
            self._known = login, login.trust.context() if login.trust else None
        return self._known

    @staticmethod
    def _authorization(login: Login) -> dict[str, str]:
        value = getattr(login.credential, "value", "")
        return {"Authorization": value} if value else {}

    def ensure(self, collection: str, body: Json) -> Json:
        """Create it unless it is there."""
        try:
            return self.call("POST", collection, body)
        except Answer as no:
            if no.code != 409:
                raise
            return self.call("GET", f"{collection}/{body['metadata']['name']}")

    def apply(self, given: str | Json | Sequence[Json]) -> list[Json]:
        """Server-side apply of YAML documents or objects, as administrator, by force."""
        documents = (
            list(yaml.safe_load_all(given))
            if isinstance(given, str)
            else [given]
            if isinstance(given, dict)
            else given
        )
        return [
            self.call("PATCH", f"{self.path_of(each)}?fieldManager=tests&force=true", each, APPLY)
            for each in documents
            if each
        ]

    @staticmethod
    def path_of(each: Json) -> str:
        """Where an object lives: plural by the usual rule."""
        version, kind, meta = each["apiVersion"], each["kind"], each["metadata"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        plural = _PLURALS.get(kind) or kind.lower() + ("es" if kind.endswith("s") else "s")
        inner = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
        return f"{base}{inner}/{plural}/{meta['name']}"

    def grant(
        self, user: str, rules: Sequence[Mapping[str, object]], namespace: str = ""
    ) -> Callable[[], None]:
        """A (Cluster)Role with these rules for a user ("system:serviceaccount:NS:NAME" for an account)."""
        name = f"t-{uuid.uuid4().hex[:8]}"
        kind = "Role" if namespace else "ClusterRole"
        base = "/apis/rbac.authorization.k8s.io/v1" + (
            f"/namespaces/{namespace}" if namespace else ""
        )
        role = {"metadata": {"name": name}, "rules": list(rules)}
        group = "rbac.authorization.k8s.io"
        binding = {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }
        self.call("POST", f"{base}/{kind.lower()}s", role)
        self.call("POST", f"{base}/{kind.lower()}bindings", binding)

        def undo() -> None:
            for plural in (f"{kind.lower()}bindings", f"{kind.lower()}s"):
                with contextlib.suppress(Answer):
                    self.call("DELETE", f"{base}/{plural}/{name}")

        return undo

    @contextlib.contextmanager
    def namespace(self, name: str = "") -> Iterator[str]:
        """A namespace of one's own. Nothing garbage-collects here: what tests usually make is deleted with it."""
        name = name or f"t-{uuid.uuid4().hex[:8]}"
        self.ensure("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield name
        finally:
            inner = f"namespaces/{name}"
            for path in (
                f"/api/v1/{inner}/pods?gracePeriodSeconds=0",
                f"/api/v1/{inner}/endpoints",
                f"/api/v1/{inner}/events",
                f"/apis/apps/v1/{inner}/replicasets",
                f"/apis/apps/v1/{inner}/deployments",
                f"/apis/discovery.k8s.io/v1beta1/{inner}/endpointslices",
            ):
                with contextlib.suppress(Answer):
                    self.call("DELETE", path)
            with contextlib.suppress(Answer):
                listed = self.call("GET", f"/api/v1/{inner}/services")["items"]
                for each in listed:
                    self.call("DELETE", f"/api/v1/{inner}/services/{each['metadata']['name']}")
            with contextlib.suppress(Answer):
                self.call("DELETE", f"/api/v1/namespaces/{name}")

    # ---------------------------------------------------------------- pods that no kubelet runs

    def pod(
        self,
        namespace: str,
        name: str,
        *,
        node: str = "n1",
        ip: str = "",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        owner: Json | None = None,
        container_id: str = "",
        phase: str = "Running",
    ) -> Json:
        """A pod as a kubelet would have reported it."""
        meta: Json = {
            "name": name,
            "labels": dict(labels or {}),
            "annotations": dict(annotations or {}),
        }
        if owner:
            meta["ownerReferences"] = [
                {
                    "apiVersion": owner["apiVersion"],
                    "kind": owner["kind"],
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                    "controller": True,
                }
            ]
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta,
            "spec": {
                "nodeName": node,
                "automountServiceAccountToken": False,
                "containers": [{"name": "main", "image": "localhost/work:1"}],
            },
        }
        base = f"/api/v1/namespaces/{namespace}/pods"
        self.call("POST", base, body)
        status: Json = {"phase": phase}
        if ip:
            status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
        if container_id:
            status["containerStatuses"] = [
                {
                    "name": "main",
                    "image": "localhost/work:1",
                    "imageID": "localhost/work@sha256:" + "ab" * 32,
                    "ready": True,
                    "restartCount": 0,
                    "containerID": f"containerd://{container_id}",
                }
            ]
        return self.call("PATCH", f"{base}/{name}/status", {"status": status}, MERGE)

    def delete_pod(self, namespace: str, name: str) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}?gracePeriodSeconds=0"
        self.call("DELETE", path)

    # ---------------------------------------------------------------- only where the server is ours

    def kill(self) -> None:
        pytest.skip("a foreign cluster is not killed")

    def start(self) -> None:
        pytest.skip("a foreign cluster is not started")

    def compact(self) -> None:
        pytest.skip("a foreign cluster's etcd is out of reach")


class ControlPlane(Plane):
    """etcd and kube-apiserver of our own."""

    own = True

    def __init__(self, folder: Path, *, arguments: Sequence[str] = ()) -> None:
        self.folder = folder
        self._arguments = tuple(arguments)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        # who dies with us dies with the *thread* that started it: one that lives as long as we do
        self._starter = ThreadPoolExecutor(1)
        self._port, self._etcd_port, peer = _free_ports(3)
        self._peer = peer
        self._authority, self._authority_key = _authority()
        (folder / "ca.crt").write_bytes(self._authority.public_bytes(Encoding.PEM))
        self._issue("server", ["system:masters"], server=True)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (folder / "sa.key").write_bytes(_pem(key))
        cluster = {
            "server": f"https://127.0.0.1:{self._port}",
            "certificate-authority": str(folder / "ca.crt"),
        }
        admin = self._certified("admin", ["system:masters"])
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "admin", "user": admin}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        (folder / "admin.kubeconfig").write_text(yaml.safe_dump(config))
        super().__init__(folder, folder / "admin.kubeconfig")

    def start(self) -> None:
        """Start what does not run; returns when the server is ready."""
        if self._etcd is None:
            url, peer = (
                f"http://127.0.0.1:{self._etcd_port}",
                f"http://127.0.0.1:{self._peer}",
            )
            self._etcd = self._spawn(
                "etcd",
                shutil.which("etcd") or "etcd",
                f"--data-dir={self.folder}/etcd",
                f"--listen-client-urls={url}",
                f"--advertise-client-urls={url}",
                f"--listen-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                f"--initial-advertise-peer-urls={peer}",
                "--unsafe-no-fsync",
                "--log-level=error",
            )
        if self._server is None:
            self._server = self._spawn(
                "kube-apiserver",
                str(BIN / "kube-apiserver"),
                f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
                "--bind-address=127.0.0.1",
                f"--secure-port={self._port}",
                "--advertise-address=127.0.0.1",
                f"--tls-cert-file={self.folder}/server.crt",
                f"--tls-private-key-file={self.folder}/server.key",
                f"--client-ca-file={self.folder}/ca.crt",
                "--authorization-mode=Node,RBAC",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={self.folder}/sa.key",
                f"--service-account-signing-key-file={self.folder}/sa.key",
                "--endpoint-reconciler-type=none",
                "--kubelet-preferred-address-types=InternalIP",
                *(self._arguments or ("--disable-admission-plugins=ServiceAccount",)),
            )
        deadline = time.monotonic() + 90
        login = self.login()
        assert login.trust is not None
        context = login.trust.context()
        while True:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(
                    f"{login.server}/readyz", timeout=5, context=context
                ) as answer,
            ):
                if answer.read() == b"ok":
                    return
            for each in (self._etcd, self._server):
                assert each.poll() is None, f"ended: {each.args!r}: {self._log()}"
            assert time.monotonic() < deadline, (
                f"the API server did not become ready: {self._log()}"
            )
            time.sleep(0.05)

    def kill(self) -> None:
        """As a crash: SIGKILL. `start` brings it back with what etcd knows."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def compact(self) -> None:
        """etcd forgets every version but the present one."""
        now = self._etcd_call("range", {"key": "AA=="})["header"]["revision"]
        self._etcd_call("compaction", {"revision": now, "physical": True})

    def close(self) -> None:
        """Nothing is left."""
        self.kill()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None
        self._starter.shutdown()

    def _etcd_call(self, what: str, body: Json) -> Json:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._etcd_port}/v3/kv/{what}", data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: Json = json.loads(answer.read())
            return found

    def _spawn(self, name: str, *argv: str) -> subprocess.Popen[bytes]:
        def start() -> subprocess.Popen[bytes]:
            with (self.folder / f"{name}.log").open("ab") as log:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    start_new_session=True,
                    preexec_fn=killed_with_us,
                )

        return self._starter.submit(start).result()

    def _log(self) -> str:
        logs = [self.folder / "etcd.log", self.folder / "kube-apiserver.log"]
        return "".join(each.read_text(errors="replace")[-2000:] for each in logs if each.exists())

    # ---------------------------------------------------------------- certificates

    def _user(self, content: Json, name: str, groups: Sequence[str]) -> Json:
        return self._certified(name, groups)

    def _certified(self, name: str, groups: Sequence[str]) -> Json:
        file = self._issue(f"user-{uuid.uuid4().hex[:8]}", groups, common_name=name)
        return {"client-certificate": f"{file}.crt", "client-key": f"{file}.key"}

    def _issue(
        self, file: str, groups: Sequence[str], *, common_name: str = "", server: bool = False
    ) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, each) for each in groups]
        names.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name or file))
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = (
            _dated(x509.CertificateBuilder())
            .subject_name(x509.Name(names))
            .issuer_name(self._authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        )
        if server:
            known = [
                x509.IPAddress(ip_address("127.0.0.1")),
                x509.IPAddress(ip_address("10.96.0.1")),
                x509.DNSName("localhost"),
                x509.DNSName("kubernetes.default.svc"),
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        certificate = builder.sign(self._authority_key, hashes.SHA256())
        (self.folder / f"{file}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        (self.folder / f"{file}.key").write_bytes(_pem(key))
        return self.folder / file


def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
    certificate = (
        _dated(x509.CertificateBuilder())
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def _dated(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(
        now + timedelta(days=2)
    )


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in made:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in made]


@contextlib.contextmanager
def control_plane(*, arguments: Sequence[str] = ()) -> Iterator[ControlPlane]:
    """Another one of our own, for tests that need one to themselves."""
    with tempfile.TemporaryDirectory(prefix="ts-kube-") as folder:
        made = ControlPlane(Path(folder), arguments=arguments)
        try:
            made.start()
            yield made
        finally:
            made.close()


@pytest.fixture(scope="session")
def real_api() -> Iterator[Plane]:
    """A real API server for the session, see the module's docstring."""
    if reason := why_not():
        pytest.skip(reason)
    if config := os.environ.get("KUBECONFIG"):
        with tempfile.TemporaryDirectory(prefix="ts-kube-") as folder:
            yield Plane(Path(folder), Path(config))
        return
    with control_plane() as made:
        yield made
