"""`python -m tripshark.settings docs/settings.md examples/tripshark.yaml`: writes the pages anew."""

import sys
from pathlib import Path

from tripshark.settings import as_markdown, as_yaml

for name in sys.argv[1:]:
    Path(name).write_text(as_yaml() if name.endswith(".yaml") else as_markdown(), "utf-8")
