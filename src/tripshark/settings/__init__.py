"""Every setting of Tripshark: what it means, its unit, its default, and where its value came from.

Sources, each stronger than the one before: defaults, the YAML file, environment variables (`TRIPSHARK_…`, `__`
between levels), the command line. They are read once, by `load`; programs hand the values on as arguments.
"""

from tripshark.settings.explaining import Explained, explain, reference
from tripshark.settings.loading import load
from tripshark.settings.pages import as_markdown, as_yaml
from tripshark.settings.tree import Settings, TlsSettings, shipped_rules
from tripshark.settings.walking import variable
from tripshark.settings.words import Listen

__all__ = [
    "Explained",
    "Listen",
    "Settings",
    "TlsSettings",
    "as_markdown",
    "as_yaml",
    "explain",
    "load",
    "reference",
    "shipped_rules",
    "variable",
]
