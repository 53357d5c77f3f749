"""Who we are to the Kubernetes API, and where it is: a service account, or a user of a kubeconfig.

Whatever can change while we run (projected tokens, rotated certificates and authorities) is read again when its file
changes. A private key given inside a kubeconfig never touches a disk.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import yaml

from tripshark.errors import BadInput, Denied, NotFound, Transient

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
MAX_FILE = 4 << 20  # of a kubeconfig, a token, a certificate
EXEC_TIMEOUT_S = 30.0
EXEC_MAX = 1 << 20  # bytes a credential plugin may say


class Credential(Protocol):
    """What proves who we are, besides a client certificate."""

    async def header(self) -> str:
        """The Authorization header's value, "" for none. Raises `Denied`, `Transient`."""

    def rejected(self) -> None:
        """The server said 401: whatever was kept is worth nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """An API server and our account there."""

    server: str  # "https://10.0.0.1:443", perhaps with a path
    credential: Credential
    trust: Trust | None  # None: plain HTTP
    namespace: str = ""  # where we live, or the context's default
    headers: tuple[tuple[str, str], ...] = ()  # whom we act for
    proxy: str = ""


# ------------------------------------------------------------------------------ credentials


@dataclass(frozen=True, slots=True)
class Fixed:
    """A credential that never changes; "" for none."""

    value: str = ""

    async def header(self) -> str:
        return self.value

    def rejected(self) -> None:
        """There is no other."""


class TokenFile:
    """A token that somebody else renews, such as the kubelet every hour."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._value = ""

    async def header(self) -> str:
        return self._read()

    def rejected(self) -> None:
        self._seen = None

    def _read(self) -> str:
        try:
            seen = _fingerprint(self._path)
            if seen != self._seen:
                token = _small_file(self._path).decode("ascii").strip()
                if not token or any(each.isspace() for each in token):
                    raise Denied("the file holds no token", where=str(self._path))
                self._seen, self._value = seen, f"Bearer {token}"
        except OSError as problem:
            if self._value:  # it is being replaced; the old one is good for a while
                return self._value
            raise Denied(
                f"the token cannot be read: {problem.strerror}",
                where=str(self._path),
                hint="is the service account's token mounted, and may this user read it?",
            ) from problem
        except UnicodeDecodeError as problem:
            raise Denied("the file holds no token", where=str(self._path)) from problem
        return self._value


class Plugin:
    """A kubeconfig's `exec`: a program of the cloud's that knows how to get a token."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], *, api: str, hint: str
    ) -> None:
        self._argv = tuple(argv)
        self._env = dict(env)
        self._api = api
        self._hint = hint
        self._value = ""
        self._until = 0.0  # the loop's time up to which it is good
        self._lock = asyncio.Lock()

    async def header(self) -> str:
        async with self._lock:
            if not self._value or asyncio.get_running_loop().time() > self._until:
                await self._ask()
            return self._value

    def rejected(self) -> None:
        self._value = ""

    async def _ask(self) -> None:
        name = self._argv[0]
        info = {"apiVersion": self._api, "kind": "ExecCredential", "spec": {"interactive": False}}
        # env(1) adds to the environment this program was started with
        settings = [f"{key}={value}" for key, value in self._env.items()]
        try:
            child = await asyncio.create_subprocess_exec(
                "env",
                *settings,
                f"KUBERNETES_EXEC_INFO={json.dumps(info)}",
                *self._argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as problem:
            raise Denied(
                f"{name} cannot be started: {problem.strerror}", where="exec"
            ) from problem
        try:
            async with asyncio.timeout(EXEC_TIMEOUT_S):
                said, complaint = await child.communicate()
        except TimeoutError as problem:
            child.kill()
            await child.wait()
            raise Transient(
                f"{name} gave no token within {EXEC_TIMEOUT_S:g} s", where="exec"
            ) from problem
        if child.returncode:
            words = complaint.decode(errors="replace").strip()[:300]
            raise Denied(f"{name} failed: {words}", where="exec", hint=self._hint)
        try:
            status = json.loads(said[:EXEC_MAX])["status"]
            token, expires = status["token"], status.get("expirationTimestamp")
            left = _seconds_left(expires) if expires else 3600.0
        except (ValueError, TypeError, LookupError, AttributeError) as problem:
            raise Denied(f"{name} gave no token", where="exec", hint=self._hint) from problem
        self._value = f"Bearer {token}"
        self._until = asyncio.get_running_loop().time() + max(1.0, left - 60)


def _seconds_left(expires: str) -> float:
    until = datetime.fromisoformat(expires)
    return until.timestamp() - datetime.now(until.tzinfo).timestamp()  # noqa: TID251 (a date set by the cloud's clock)


# ------------------------------------------------------------------------------ certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Which authority signs for the server, and the certificate we show it."""

    authority: Path | str | None = None  # a file, PEM text, or None for the system's
    certificate: Path | bytes | None = None
    key: Path | bytes | None = None
    insecure: bool = False
    server_name: str = ""  # the name to ask for and to expect, when not the address's

    def context(self) -> ssl.SSLContext:
        """Raises `BadInput` when a file cannot be used."""
        if self.authority is None or self.insecure:
            context = ssl.create_default_context()
        else:  # this one, and not the system's
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # authorities made by kubeadm, k3s and others lack extensions that RFC 5280 wants
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Read certificates (again) into a context in use; new connections have them."""
        try:
            if isinstance(self.authority, Path):
                context.load_verify_locations(cafile=str(self.authority))
            elif self.authority is not None:
                context.load_verify_locations(cadata=self.authority)
            if self.certificate is not None and self.key is not None:
                _load_chain(context, self.certificate, self.key)
        except (OSError, ssl.SSLError) as problem:
            raise BadInput(
                f"a certificate cannot be used: {problem}",
                where=str(self.authority if isinstance(self.authority, Path) else "kubeconfig"),
            ) from problem

    def fingerprint(self) -> tuple[object, ...]:
        """Changes when one of the files does."""
        files = (self.authority, self.certificate, self.key)
        return tuple(_fingerprint_or_none(each) for each in files if isinstance(each, Path))


def _load_chain(context: ssl.SSLContext, certificate: Path | bytes, key: Path | bytes) -> None:
    """The library reads files only: bytes become files without a name."""
    with closing(_Named(certificate)) as chain, closing(_Named(key)) as secret:
        context.load_cert_chain(chain.path, secret.path)


class _Named:
    """Something to open for whoever insists on a path."""

    def __init__(self, content: Path | bytes) -> None:
        self._fd = -1
        if isinstance(content, Path):
            self.path = str(content)
            return
        self._fd = os.memfd_create("tripshark-kubeconfig", os.MFD_CLOEXEC)
        os.write(self._fd, content)
        self.path = f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)


# ------------------------------------------------------------------------------ where we are


def in_cluster(host: str, port: str, folder: Path = SERVICE_ACCOUNT) -> Login:
    """The pod's own service account; `host` and `port` are KUBERNETES_SERVICE_HOST and _PORT.

    Raises `NotFound` outside a pod, `BadInput` when what is mounted cannot be used.
    """
    if not host or not (folder / "token").exists():
        raise NotFound(
            "no service account is mounted here",
            where=str(folder),
            hint="in a pod set automountServiceAccountToken: true; elsewhere give kubernetes.kubeconfig",
        )
    namespace = ""
    if (folder / "namespace").exists():
        namespace = _small_file(folder / "namespace").decode(errors="replace").strip()
    where = f"[{host}]" if ":" in host else host
    return Login(
        server=f"https://{where}:{port or '443'}",
        credential=TokenFile(folder / "token"),
        trust=Trust(authority=folder / "ca.crt"),
        namespace=namespace,
    )


def kubeconfig(path: Path, context: str = "") -> Login:
    """A user of a kubeconfig: certificates, tokens, basic, `exec` plugins, impersonation, a proxy.

    Raises `NotFound` (no such file, context, cluster or user) and `BadInput`.
    """
    try:
        content = yaml.load(_small_file(path), Loader=yaml.CSafeLoader)
    except OSError as problem:
        raise NotFound(f"no kubeconfig: {problem.strerror}", where=str(path)) from problem
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as problem:
        raise BadInput(f"not a kubeconfig: {problem}", where=str(path)) from problem
    if not isinstance(content, dict):
        raise BadInput("not a kubeconfig", where=str(path))
    book = _Part(content, path)
    chosen = book.named("contexts", context or book.text("current-context"), "context")
    cluster = book.named("clusters", chosen.text("cluster"), "cluster")
    user = (
        book.named("users", chosen.text("user"), "user")
        if chosen.text("user")
        else _Part({}, path)
    )
    server = cluster.text("server").rstrip("/")
    if not server.startswith(("https://", "http://")):
        raise BadInput(f"no server's address: {server!r}", where=str(path))
    authority = cluster.data_or_file("certificate-authority")
    trust = Trust(
        authority=authority.decode(errors="replace")
        if isinstance(authority, bytes)
        else authority,
        certificate=user.data_or_file("client-certificate"),
        key=user.data_or_file("client-key"),
        insecure=cluster.content.get("insecure-skip-tls-verify") is True,
        server_name=cluster.text("tls-server-name"),
    )
    headers = [("Impersonate-User", user.text("as"))] if user.text("as") else []
    groups = user.content.get("as-groups")
    headers += [
        ("Impersonate-Group", str(each)) for each in (groups if isinstance(groups, list) else ())
    ]
    return Login(
        server=server,
        credential=_credential(user),
        trust=trust if server.startswith("https://") else None,
        namespace=chosen.text("namespace"),
        headers=tuple(headers),
        proxy=cluster.text("proxy-url"),
    )


def _credential(user: _Part) -> Credential:
    """In kubectl's order of preference."""
    if user.text("token"):
        return Fixed(f"Bearer {user.text('token')}")
    if user.text("tokenFile"):
        return TokenFile(user.beside(user.text("tokenFile")))
    if user.text("username"):
        both = f"{user.text('username')}:{user.text('password')}"
        return Fixed("Basic " + base64.b64encode(both.encode()).decode())
    program = user.content.get("exec")
    if isinstance(program, dict):
        part = _Part(program, user.path)
        name, args, env = part.text("command"), program.get("args"), program.get("env")
        if not name:
            raise BadInput("exec without a command", where=str(user.path))
        if "/" in name:
            name = str(user.beside(name))
        pairs = {
            str(each.get("name")): str(each.get("value", ""))
            for each in (env if isinstance(env, list) else ())
            if isinstance(each, dict)
        }
        return Plugin(
            (name, *(str(each) for each in (args if isinstance(args, list) else ()))),
            pairs,
            api=part.text("apiVersion"),
            hint=part.text("installHint")[:500],
        )
    if "auth-provider" in user.content:
        raise BadInput(
            "auth-provider is not supported, nor is it by today's kubectl",
            where=str(user.path),
            hint="use an exec plugin or a token",
        )
    return Fixed()


@dataclass(frozen=True, slots=True)
class _Part:
    """A mapping of a kubeconfig, which may hold anything."""

    content: Mapping[object, object]
    path: Path

    def text(self, key: str) -> str:
        value = self.content.get(key)
        return value if isinstance(value, str) else ""

    def beside(self, name: str) -> Path:
        """A path as kubectl understands it: relative to the kubeconfig."""
        return self.path.parent / name

    def named(self, kind: str, name: str, inner: str) -> _Part:
        entries = self.content.get(kind)
        for each in entries if isinstance(entries, list) else ():
            if isinstance(each, dict) and each.get("name") == name:
                content = each.get(inner)
                if isinstance(content, dict):
                    return _Part(content, self.path)
        raise NotFound(f"the kubeconfig has no {inner} {name!r}", where=str(self.path))

    def data_or_file(self, key: str) -> bytes | Path | None:
        if data := self.text(f"{key}-data"):
            try:
                return base64.b64decode(data, validate=True)
            except binascii.Error as problem:
                raise BadInput(f"{key}-data is not base64", where=str(self.path)) from problem
        return self.beside(self.text(key)) if self.text(key) else None


def _small_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE)


def _fingerprint(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _fingerprint_or_none(path: Path) -> tuple[int, int, int] | None:
    try:
        return _fingerprint(path)
    except OSError:
        return None
