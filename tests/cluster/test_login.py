"""Every way into a cluster: what is mounted into a pod, what stands in a kubeconfig, what changes while we run."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.control import Plane
from tests.cluster.fake import FakeApi
from tripshark.cluster.api import KubeApi
from tripshark.cluster.login import Login, in_cluster, kubeconfig
from tripshark.errors import BadInput, Denied, NotFound, Transient

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A kubeconfig with this user and this cluster."""

    def make(user: dict[str, Any], **cluster: Any) -> Path:
        content = {
            "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1", **cluster}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [
                {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "n"}}
            ],
            "current-context": "x",
        }
        path = tmp_path / "config"
        path.write_text(yaml.safe_dump(content))
        return path

    return make


async def test_tokens_and_passwords(write: Write, tmp_path: Path) -> None:
    """Each as the header that the server wants."""
    (tmp_path / "token").write_text("abc\n")
    for user, header in (
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": "token"}, "Bearer abc"),
        ({"username": "u", "password": "p"}, "Basic dTpw"),
        ({}, ""),
    ):
        login = kubeconfig(write(user))
        assert await login.credential.header() == header
        assert login.namespace == "n"
        login.credential.rejected()


async def test_a_token_that_changed_is_read_again(tmp_path: Path) -> None:
    """Also by the kubelet's way, a link that is moved; one that vanishes for a moment is still good."""
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "token").write_text(f"token{number}")
    os.symlink("v1", tmp_path / "data")
    (tmp_path / "token").symlink_to("data/token")
    login = in_cluster("10.0.0.1", "443", tmp_path)
    assert login.server == "https://10.0.0.1:443"
    assert await login.credential.header() == "Bearer token1"
    os.symlink("v2", tmp_path / "new")
    os.rename(tmp_path / "new", tmp_path / "data")
    assert await login.credential.header() == "Bearer token2"
    (tmp_path / "v2" / "token").unlink()
    assert await login.credential.header() == "Bearer token2"


async def test_who_is_in_no_pod_hears_so(tmp_path: Path) -> None:
    """Nothing mounted, or nothing in what is mounted."""
    with pytest.raises(NotFound, match="no service account"):
        in_cluster("10.0.0.1", "443", tmp_path)
    (tmp_path / "token").write_text("")
    with pytest.raises(NotFound):
        in_cluster("", "", tmp_path)
    assert in_cluster("fd00::1", "", tmp_path).server == "https://[fd00::1]:443"
    for content in (b"", b"a b", b"\xff\xfe"):
        (tmp_path / "token").write_bytes(content)
        with pytest.raises(Denied, match="no token"):
            await in_cluster("h", "1", tmp_path).credential.header()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        ("[", BadInput),
        ("[]", BadInput),
        ("a: b", NotFound),
        ("current-context: x\ncontexts: {}", NotFound),
        ("current-context: x\ncontexts: [1, {name: x, context: 3}]", NotFound),
        ("current-context: x\ncontexts: [{name: x, context: {cluster: c}}]", NotFound),
        (
            (
                "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
                "clusters: [{name: c, cluster: {server: 'ftp://x'}}]"
            ),
            BadInput,
        ),
        (
            (
                "current-context: x\ncontexts: [{name: x, context: {cluster: c}}]\n"
                "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority-data: '!'}}]"
            ),
            BadInput,
        ),
    ],
)
def test_a_kubeconfig_that_is_none(tmp_path: Path, content: str, error: type[Exception]) -> None:
    """Said with the file's name."""
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(error, match="config"):
        kubeconfig(path)
    with pytest.raises(NotFound):
        kubeconfig(tmp_path / "other")


def test_what_kubectl_dropped_is_refused(write: Write) -> None:
    """With the way out."""
    with pytest.raises(BadInput, match="exec plugin"):
        kubeconfig(write({"auth-provider": {"name": "gcp"}}))
    with pytest.raises(BadInput, match="without a command"):
        kubeconfig(write({"exec": {"args": ["x"]}}))


def plugin(tmp_path: Path, code: str) -> dict[str, Any]:
    """A credential plugin that is this Python program."""
    path = tmp_path / "plugin.py"
    path.write_text(code)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(path)],
            "env": [{"name": "MARK", "value": "m"}],
            "installHint": "install it",
        }
    }


async def test_a_clouds_plugin_is_asked_for_tokens(write: Write, tmp_path: Path) -> None:
    """Once, then again when it has expired or was refused; with its environment and the protocol's version."""
    code = """if True:
        import json, os, pathlib
        count = pathlib.Path(__file__).with_suffix(".count")
        number = int(count.read_text()) + 1 if count.exists() else 1
        count.write_text(str(number))
        info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
        token = f"{os.environ['MARK']}-{number}-{info['apiVersion'][-2:]}"
        print(json.dumps({"status": {"token": token, "expirationTimestamp": "2999-01-01T00:00:00Z"}}))
    """
    login = kubeconfig(write(plugin(tmp_path, code)))
    assert await login.credential.header() == "Bearer m-1-v1"
    assert await login.credential.header() == "Bearer m-1-v1"
    login.credential.rejected()
    assert await login.credential.header() == "Bearer m-2-v1"


@pytest.mark.parametrize("code", ["raise SystemExit('no session')", "print('{}')", "print('[')"])
async def test_a_plugin_that_fails_is_quoted(write: Write, tmp_path: Path, code: str) -> None:
    """With what to do about it."""
    with pytest.raises(Denied, match="install it"):
        await kubeconfig(write(plugin(tmp_path, code))).credential.header()


async def test_a_plugin_that_is_not_there(write: Write) -> None:
    """env(1) says so."""
    with pytest.raises(Denied, match="No such file"):
        await kubeconfig(write({"exec": {"command": "./no-such-plugin"}})).credential.header()


def test_whom_we_act_for_and_whom_we_trust(write: Write) -> None:
    """Impersonation, proxy, names; insecure only when said so in so many words."""
    login = kubeconfig(
        write(
            {"token": "t", "as": "alice", "as-groups": ["dev", "ops"]},
            **{
                "proxy-url": "http://p:1",
                "tls-server-name": "kube",
                "insecure-skip-tls-verify": True,
            },
        )
    )
    assert login.headers == (
        ("Impersonate-User", "alice"),
        ("Impersonate-Group", "dev"),
        ("Impersonate-Group", "ops"),
    )
    assert login.proxy == "http://p:1"
    assert login.trust is not None
    assert login.trust.server_name == "kube"
    assert login.trust.insecure
    doubtful = kubeconfig(write({}, **{"insecure-skip-tls-verify": "true"}))
    assert doubtful.trust is not None
    assert not doubtful.trust.insecure


def test_a_certificate_that_is_none_is_said(write: Write) -> None:
    """Before anything is asked of anybody."""
    junk = base64.b64encode(b"junk").decode()
    for user, cluster in (
        ({"client-certificate-data": junk, "client-key-data": junk}, {}),
        ({}, {"certificate-authority-data": junk}),
        ({}, {"certificate-authority": "no-such-file"}),
    ):
        login = kubeconfig(write(user, **cluster))
        with pytest.raises(BadInput, match="certificate cannot be used"):
            KubeApi(login)


# ------------------------------------------------------------------------------ against servers


def inlined(path: Path, tmp_path: Path) -> Path:
    """The same kubeconfig with every file in it as data."""
    content = yaml.safe_load(path.read_text())
    for part in (content["clusters"][0]["cluster"], content["users"][0]["user"]):
        for key in ("certificate-authority", "client-certificate", "client-key"):
            if key in part:
                data = Path(part.pop(key)).read_bytes()
                part[f"{key}-data"] = base64.b64encode(data).decode()
    made = tmp_path / "inlined"
    made.write_text(json.dumps(content))
    return made


async def who_am_i(login: Login) -> str:
    """As far as a server that old can tell: what it calls us when it refuses."""
    async with KubeApi(login) as api:
        try:
            await api.get("/api/v1/namespaces/kube-system/secrets/none")
        except Denied as denied:
            return denied.message.partition('User "')[2].partition('"')[0]
        except NotFound:
            return "admin"
    return ""


async def test_certificates_as_files_and_as_data(real_api: Plane, tmp_path: Path) -> None:
    """Both are the same user to the real server; a private key that came as data leaves no file."""
    if not real_api.own:
        pytest.skip("certificates of our own need a server of our own")
    path = real_api.user("alice", ["dev"])
    assert await who_am_i(kubeconfig(path)) == "alice"
    assert await who_am_i(kubeconfig(inlined(path, tmp_path))) == "alice"
    assert await who_am_i(real_api.login()) == "admin"


async def test_a_service_account_as_a_pod_has_it(real_api: Plane) -> None:
    """Token, authority and namespace from the mounted folder."""
    with real_api.namespace() as space:
        folder = real_api.service_account(space, "agent")
        host, _, port = real_api.url.removeprefix("https://").rpartition(":")
        login = in_cluster(host, port, folder)
        assert login.namespace == space
        assert await who_am_i(login) == f"system:serviceaccount:{space}:agent"
        (folder / "token").write_text("nonsense")
        async with KubeApi(login) as api:
            with pytest.raises(Denied, match="does not know us"):
                await api.get("/api/v1/pods")


async def test_another_authoritys_server_is_not_believed(real_api: Plane, tmp_path: Path) -> None:
    """Nothing is said to it, above all no token; when the right authority is put in its place it is believed."""
    if not real_api.own:
        pytest.skip("needs a server of our own")
    import trustme

    with real_api.namespace() as space:
        folder = real_api.service_account(space, "agent")
        right = (folder / "ca.crt").read_bytes()
        trustme.CA().cert_pem.write_to_path(str(folder / "ca.crt"))
        host, _, port = real_api.url.removeprefix("https://").rpartition(":")
        async with KubeApi(in_cluster(host, port, folder), tries=1) as api:
            with pytest.raises(Transient, match="did not sign"):
                await api.get("/version")
            (folder / "ca.crt").write_bytes(right)
            with pytest.raises(Transient):  # the failure makes it look again
                await api.get("/version")
            assert (await api.get("/version"))["gitVersion"]


async def test_a_token_renewed_amid_a_request_is_tried(fake_api: FakeApi, tmp_path: Path) -> None:
    """401 once is not believed: the token may just have been replaced."""
    (tmp_path / "token").write_text("t")
    config = {
        "clusters": [{"name": "c", "cluster": {"server": fake_api.url}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "config").write_text(json.dumps(config))
    fake_api.faults.unknown = 1
    async with KubeApi(kubeconfig(tmp_path / "config")) as api:
        fake_api.put("/api/v1/nodes/n", {})
        assert (await api.get("/api/v1/nodes/n"))["metadata"]["name"] == "n"
        fake_api.faults.unknown = 2
        with pytest.raises(Denied, match="does not know us"):
            await api.get("/api/v1/nodes/n")
