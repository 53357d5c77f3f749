"""`tripshark mcp`: lets an assistant ask about incidents, read-only, over the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from tripshark.cli.common import CaFile, Config, Data, TokenFile, command, settings_of
from tripshark.programs.service import Service as Here
from tripshark.wireshark.asking import Service


@command
def mcp(
    url: Annotated[
        str, typer.Option("--url", help="Ask this Tripshark, such as a hub.", show_default=False)
    ] = "",
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    config: Config = None,
    data: Data = None,
) -> None:
    """An MCP server on standard input and output; read-only. An assistant starts it.

    Example: tripshark mcp --url https://tripshark.example.com --token-file /etc/tripshark/token
    """
    if url:
        service = Service(url=url, token_file=token_file, ca_file=ca_file)
    else:
        settings = settings_of(config, data)
        service = Service(
            socket=settings.api_socket,
            url=Here(settings).where,
            token_file=token_file,
            ca_file=ca_file,
        )
    from tripshark.programs.assistant import serve  # the SDK is most of a second

    serve(service)
