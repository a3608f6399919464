"""The outbox: clicks wait on disk here until every notifier has taken them."""

from __future__ import annotations

from postbox_plugin.outbox.administration import Administration
from postbox_plugin.outbox.outbox import Outbox
from postbox_plugin.outbox.records import Listed, NotifierStatus

__all__ = ["Administration", "Listed", "NotifierStatus", "Outbox"]
