"""What the API server says no to, beyond what every part of Tripshark knows of errors."""

from __future__ import annotations

from tripshark.errors import Denied, Refused, Transient


class NotPermitted(Denied):
    """Our account lacks a right (403); the hint is the RBAC rule that is missing."""

    http_status = 403

    def __init__(
        self, message: str, *, verb: str, group: str, resource: str, namespace: str, where: str
    ) -> None:
        rule = f'{{apiGroups: ["{group}"], resources: ["{resource}"], verbs: ["{verb}"]}}'
        scope = f"a Role in {namespace}" if namespace else "a ClusterRole"
        super().__init__(message, where=where, hint=f"missing from {scope}: {rule}")
        self.verb = verb
        self.group = group
        self.resource = resource
        self.namespace = namespace  # "": asked for the whole cluster


class Exists(Refused):
    """An object of that name is there already (409 AlreadyExists)."""


class Conflict(Transient):
    """The object changed since it was read, or another manager owns the field (409): read it and try again."""

    http_status = 409


class Gone(Transient):
    """The server no longer knows that version (410): list afresh."""

    http_status = 410


class Unsent(Transient):
    """There was no connection: the server has heard nothing of the request."""
