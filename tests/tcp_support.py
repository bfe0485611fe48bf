"""TCP's account of what the other side has acknowledged, written by a test."""

from __future__ import annotations

import pytest

from vllm_http import _transport_delivery


class Account:
    """What TCP says, in place of the system's word.

    Attributes:
        acked: Bytes; None where the system does not tell.
    """

    def __init__(self) -> None:
        self.acked: int | None = 100
        self.rtt = 0.0

    def __call__(self, sock: object) -> tuple[int | None, float]:
        return self.acked, self.rtt


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Account:
    """An account that a test writes."""
    account = Account()
    monkeypatch.setattr(_transport_delivery, "_account", account)
    return account
