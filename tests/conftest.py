"""How much the property tests try: the same examples each time, or many new ones with HYPOTHESIS_PROFILE=deep."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

from tests.cluster.control import real_api
from tests.containers.runtime import containerd
from tests.store.postgres import postgres
from tests.store.swift import s3

# fixtures of all tests: imported here alone, each server is started once
__all__ = ["containerd", "postgres", "real_api", "s3"]

# settings of whoever runs the tests are not those of the services that tests start
for _name in [each for each in os.environ if each.startswith("TRIPSHARK_")]:
    if _name != "TRIPSHARK_TOOLS":  # where deploy/test-tools keeps Helm
        del os.environ[_name]

# no deadline: the machine may be busy with other things, which is no fault of the code
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
