"""Where Wireshark looks for profiles and extcap programs: 4.0 to 4.6, of one person and of the whole machine."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tripshark.formats.wireshark_profile import NAME

_SECONDS: Final = 20.0
_SYSTEM_EXTCAP: Final = (
    "/usr/lib/x86_64-linux-gnu/wireshark/extcap",
    "/usr/lib/aarch64-linux-gnu/wireshark/extcap",
    "/usr/lib64/wireshark/extcap",
    "/usr/lib/wireshark/extcap",
    "/usr/libexec/wireshark/extcap",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are put."""

    profile: Path  # the profile's own folder
    extcap: tuple[Path, ...]  # folders of programs
    later: frozenset[Path] = frozenset()  # of them, those that only Wireshark 4.4 and later read

    @property
    def programs(self) -> tuple[Path, ...]:
        """Our program in each of them."""
        return tuple(folder / "tripshark" for folder in self.extcap)


def personal(home: Path, config: Path | None = None) -> Places:
    """Of one person; `config` is XDG_CONFIG_HOME where it is set.

    Wireshark 4.0 and 4.2 look for programs below the configuration, 4.4 and later below ~/.local/lib. An older
    ~/.wireshark is used as long as there is no newer folder, as Wireshark does.
    """
    base = (config or home / ".config") / "wireshark"
    if not base.is_dir() and (home / ".wireshark").is_dir():
        base = home / ".wireshark"
    later = home / ".local" / "lib" / "wireshark" / "extcap"
    return Places(
        profile=base / "profiles" / NAME,
        extcap=(base / "extcap", later),
        later=frozenset({later}),
    )


def everybody(tshark: str | None) -> Places:
    """Of the whole machine: where this tshark says, and where others are known to look if they are there."""
    said = _said(tshark) if tshark else {}
    told = [said[name] for name in ("Global Extcap path", "Extcap path") if name in said]
    known = [each for each in _SYSTEM_EXTCAP if Path(each).is_dir()]
    data = said.get("Global configuration", "/usr/share/wireshark")
    return Places(
        profile=Path(data) / "profiles" / NAME,
        extcap=tuple(Path(each) for each in dict.fromkeys((*told, *known))),
    )


def _said(tshark: str) -> dict[str, str]:
    """What `tshark -G folders` prints."""
    try:
        done = subprocess.run(  # noqa: S603  # a program of this machine, named by its path
            [tshark, "-G", "folders"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}
