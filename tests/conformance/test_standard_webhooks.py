"""Our signatures against the vectors that the Standard Webhooks project publishes with its libraries."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from postbox_hooks.notify import webhook
from postbox_hooks.notify.webhook import WebhookNotifier

pytestmark = pytest.mark.extra("webhook")

if "POSTBOX_CORPUS" not in os.environ:
    pytest.skip("POSTBOX_CORPUS does not name the folder of the corpus", allow_module_level=True)

VECTORS = json.loads(
    Path(os.environ["POSTBOX_CORPUS"], "standards", "standard_webhooks_vectors.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["signature"])
def test_signature(vector: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The headers of a notification are those of the vector where it is valid, and others where it is not."""

    class Clock(datetime):
        """Stands at the vector's time."""

        @classmethod
        def now(cls, tz: Any = None) -> Clock:
            return cls.fromtimestamp(vector["timestamp"], tz)

    monkeypatch.setattr(webhook, "datetime", Clock)
    notifier = WebhookNotifier(url="https://app.example.com/", secret=vector["secret"])
    headers = notifier._signed(vector["msg_id"], vector["payload"].encode())
    assert headers["webhook-id"] == vector["msg_id"]
    assert headers["webhook-timestamp"] == str(vector["timestamp"])
    assert (headers["webhook-signature"] == vector["signature"]) is vector["valid"]


def test_there_are_vectors() -> None:
    """The corpus has at least one vector that must hold and one that must not."""
    assert {vector["valid"] for vector in VECTORS} == {True, False}
