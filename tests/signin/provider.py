"""An identity provider as a process of its own: Canaille, in memory, with two people and one client.

    python -m tests.signin.provider REDIRECT_URI POST_LOGOUT_URI

Prints its issuer when it listens. alice is in the group secops, bob in none; their passwords are their names twice.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urljoin

import httpx2

CLIENT_ID, CLIENT_SECRET = "tripshark", "a-secret:with/odd %characters"
READY_SECONDS = 30.0


def main(redirect_uri: str, farewell_uri: str) -> None:
    """Serves until it is ended."""
    import socket

    from canaille import create_app
    from canaille.app import models
    from joserfc import jwk
    from werkzeug.serving import make_server, select_address_family

    bound = socket.socket(select_address_family("127.0.0.1", 0))
    bound.bind(("127.0.0.1", 0))
    port = bound.getsockname()[1]
    key = jwk.RSAKey.generate_key(2048, {"use": "sig"}, private=True)
    key.ensure_kid()
    app = create_app(
        {
            "SECRET_KEY": "not-a-secret" * 4,
            "SERVER_NAME": f"127.0.0.1:{port}",
            "PREFERRED_URL_SCHEME": "http",
            "CANAILLE": {
                "DATABASE": "memory",
                "JAVASCRIPT": False,
                "HTMX": False,
                "LOGGING": {"version": 1, "disable_existing_loggers": True},
            },
            "CANAILLE_OIDC": {"ACTIVE_JWKS": [key.as_dict(private=True)]},
        }
    )
    with app.app_context():
        backend = app.backend
        people = []
        for name in ("alice", "bob"):
            user = models.User(
                user_name=name,
                formatted_name=name.title(),
                family_name=name.title(),
                emails=[f"{name}@example.test"],
                display_name=name,
                password=name + name,
            )
            backend.save(user)
            people.append(user)
        group = models.Group(display_name="secops", members=people[:1])
        backend.save(group)
        client = models.Client(
            client_id=CLIENT_ID,
            client_name="Tripshark",
            client_secret=CLIENT_SECRET,
            client_uri="https://tripshark.test",
            redirect_uris=[redirect_uri],
            post_logout_redirect_uris=[farewell_uri],
            grant_types=["authorization_code"],
            response_types=["code"],
            scope=["openid", "profile", "email", "groups"],
            token_endpoint_auth_method="client_secret_basic",
        )
        backend.save(client)
        client.audience = [client]
        backend.save(client)
    bound.listen()
    server = make_server("127.0.0.1", port, app, threaded=True, fd=bound.fileno())
    print(f"http://127.0.0.1:{port}", flush=True)
    server.serve_forever()


@dataclass
class Running:
    """The provider, and somebody's browser at it."""

    issuer: str
    process: asyncio.subprocess.Process

    async def sign_in(self, browser: httpx2.AsyncClient, url: str, name: str) -> str:
        """Follows the provider's pages as a browser would; returns the address it sends the browser back to."""
        answer = await browser.get(url)
        for _ in range(12):
            if answer.is_redirect:
                where = urljoin(str(answer.url), answer.headers["location"])
                if not where.startswith(self.issuer):
                    return where
                answer = await browser.get(where)
                continue
            answer.raise_for_status()
            fields = _fields(answer.text)
            if "password" in fields:
                fields["password"] = name + name
            elif "login" in fields:
                fields["login"] = name
            elif "answer" in answer.text:
                fields["answer"] = "accept"
            answer = await browser.post(str(answer.url), data=fields)
        raise AssertionError(f"the provider asks on and on: {answer.url} {answer.text[:2000]}")


def _fields(page: str) -> dict[str, str]:
    """The form of the page: names and values of its inputs."""
    found = {}
    for tag in re.findall(r"<input\b[^>]*>", page):
        said = {key: unescape(value) for key, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
        if "name" in said:
            found[said["name"]] = said.get("value", "")
    return found


@asynccontextmanager
async def running(redirect_uri: str, farewell_uri: str) -> AsyncIterator[Running]:
    """The provider while the block runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.signin.provider", redirect_uri, farewell_uri,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        cwd=Path(__file__).parents[2], env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            issuer = (await process.stdout.readline()).decode().strip()
        assert issuer.startswith("http://127.0.0.1:"), "the provider did not start"
        yield Running(issuer, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


if __name__ == "__main__":
    main(*sys.argv[1:])
