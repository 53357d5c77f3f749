"""`tripshark share`: packets for people who may not see everything."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import typer

from tripshark.cli.capture_file import capture_of
from tripshark.cli.common import (
    AsJson,
    Config,
    Data,
    command,
    emit,
    out,
    printable,
    settings_of,
)
from tripshark.errors import BadInput, Permanent
from tripshark.formats.handing_on import to_share, told
from tripshark.formats.sharing.derived import Payloads, Shared, Wish
from tripshark.formats.sharing.pseudonyms import KEY_BYTES
from tripshark.programs.accounts import current
from tripshark.programs.reading import reading
from tripshark.settings import Settings


@command
def share(
    what: Annotated[
        str,
        typer.Argument(help="Incident id, its beginning, `last`, or the path of a pcapng file."),
    ],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.", show_default=False)
    ] = None,
    payloads: Annotated[
        str,
        typer.Option(
            "--payloads",
            help="cut: headers only. blanked: credentials and cookies overwritten. full.",
        ),
    ] = "cut",
    keep_addresses: Annotated[
        bool | None,
        typer.Option(
            "--keep-addresses/--pseudonyms",
            help="Addresses as they are, or pseudonyms that keep prefixes (cut payloads only).",
            show_default="pseudonyms where payloads are cut",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file",
            help="32 bytes of a secret of yours: the same pseudonyms in every file made with it.",
            show_default=False,
        ),
    ] = None,
    file: Annotated[
        str, typer.Option("--file", help="Which capture file.", show_default=False)
    ] = "",
    config: Config = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """A derived capture for others: payloads cut or blanked, addresses as pseudonyms, alerts without their text.

    It names the SHA-256 of the file it was made of, and never has TLS keys.

    Example: tripshark share last -o for-vendor.pcapng
    """
    wish = _wish(payloads, keep_addresses=keep_addresses, key_file=key_file)
    given = Path(what)
    if given.suffix == ".pcapng" and given.is_file():  # a copy, with keys or of another tool
        id, name = "", given.name
        made = to_share(_bytes(given), name, wish)
        path = output or Path(f"{given.stem}-shared.pcapng")
    else:
        settings = settings_of(config, data)
        id, name, made = asyncio.run(_share(settings, what, file, wish))
        path = output or Path(f"{id}-shared.pcapng")
    try:
        path.write_bytes(made.content)
    except OSError as problem:
        raise Permanent(
            f"cannot write: {problem.strerror}", where=str(path), hint="name another file with -o"
        ) from problem
    if as_json:
        emit({"incident": id, "from": name, "file": str(path), **told(wish, made)})
    else:
        out.print(
            f"{printable(path)}: {made.packets} packets, {made.cut} cut, {made.blanked} blanked, "
            f"{made.addresses} addresses renamed"
        )


def _wish(payloads: str, *, keep_addresses: bool | None, key_file: Path | None) -> Wish:
    try:
        how = Payloads(payloads)
    except ValueError as problem:
        raise BadInput(
            f"unknown {payloads!r}", where="--payloads", hint="cut, blanked or full"
        ) from problem
    if keep_addresses is None:
        keep_addresses = how is not Payloads.CUT
    if keep_addresses:
        if key_file is not None:
            raise BadInput("a key is for pseudonyms, and there are none", where="--key-file")
        return Wish(payloads=how)
    if key_file is None:
        return Wish(payloads=how, pseudonyms=secrets.token_bytes(KEY_BYTES))
    try:
        with key_file.open("rb") as opened:
            key = opened.read(KEY_BYTES + 1)
    except OSError as problem:
        raise BadInput(f"cannot be read: {problem.strerror}", where=str(key_file)) from problem
    if len(key) != KEY_BYTES:
        raise BadInput(
            f"a key has {KEY_BYTES} bytes",
            where=str(key_file),
            hint=f"head -c {KEY_BYTES} /dev/urandom >{key_file}",
        )
    return Wish(payloads=how, pseudonyms=key)


async def _share(settings: Settings, id: str, file: str, wish: Wish) -> tuple[str, str, Shared]:
    async with reading(settings) as store:
        found = await store.sealed(id)
        path = capture_of(Path(store.vault.folder(found.id)), file)
        made = to_share(_bytes(path), path.name, wish)
        store.vault.custody(
            found.id, "shared", current().name, {"file": path.name, **told(wish, made)}
        )
        return found.id, path.name, made


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Permanent(
            f"the capture cannot be read: {problem.strerror}",
            where=str(path),
            hint="read it as root, or as a user of the group that owns it",
        ) from problem
