"""Small values that the tests of the flow share."""

from __future__ import annotations

from tripshark.model.alert import Alert, Priority


class ManualClock:
    """Time as the test wants it."""

    def __init__(self, now_ns: int = 0) -> None:
        self.now = now_ns

    def now_ns(self) -> int:
        return self.now


def an_alert(*, time_ns: int = 1, rule: str = "Terminal shell in container") -> Alert:
    return Alert(
        rule=rule,
        priority=Priority.CRITICAL,
        time_ns=time_ns,
        namespace="payments",
        pod="checkout-7d9f",
    )
