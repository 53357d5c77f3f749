#!/usr/bin/env python3
"""Writes what the image is made of as a CycloneDX 1.5 document: the same input gives the same bytes.

    dpkg-query -W -f '${Package}\\t${Version}\\t${Architecture}\\n' | deploy/sbom.py LOCK --debian - --time SECONDS

LOCK is a requirements file with hashes. Python's standard library is all it needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

Json = dict[str, object]


def python_packages(lock: str) -> Iterator[Json]:
    """One component for each pinned package; markers are kept as a property. Raises `ValueError` for what is not pinned."""
    for line in lock.replace("\\\n", " ").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = re.match(
            r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)(?:\s*;\s*(.*?))?(?=\s+--hash|\s*$)",
            line,
        )
        if not found or "--hash=sha256:" not in line:
            raise ValueError(f"not pinned with a hash: {line[:80]}")
        name = re.sub(r"[-_.]+", "-", found[1]).lower()
        component = _component(name, found[2], f"pkg:pypi/{name}@{quote(found[2])}")
        hashes = sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
        properties = [{"name": "tripshark:one-of-sha256", "value": each} for each in hashes]
        if found[3]:
            properties.append({"name": "tripshark:marker", "value": found[3].strip()})
        yield {**component, "properties": properties}


def debian_packages(listing: str) -> Iterator[Json]:
    """One component for each `package<TAB>version<TAB>architecture`."""
    for line in listing.splitlines():
        name, version, architecture = line.split("\t")
        where = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={architecture}"
        yield _component(name, version, where)


def document(components: list[Json], *, at: int) -> Json:
    """The whole; its serial number follows from what it holds."""
    components = sorted(components, key=lambda each: str(each["purl"]))
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'tripshark:{digest}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "name": "tripshark", "bom-ref": "tripshark"},
        },
        "components": components,
    }


def _component(name: str, version: str, purl: str) -> Json:
    return {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument(
        "--debian", metavar="FILE", help="listing of dpkg-query; -: standard input"
    )
    parser.add_argument("--time", type=int, default=0, help="seconds since 1970")
    given = parser.parse_args()
    found = list(python_packages(given.lock.read_text(encoding="utf-8")))
    if given.debian:
        text = sys.stdin.read() if given.debian == "-" else Path(given.debian).read_text("utf-8")
        found += debian_packages(text)
    json.dump(document(found, at=given.time), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
