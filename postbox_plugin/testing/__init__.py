"""For authors of plugins and adapters: sample mails and clicks, a notifier that remembers, and the tests that every
notifier must pass.
"""

from postbox_plugin.testing.cases import NotifierCases, Server
from postbox_plugin.testing.samples import RecordingNotifier, sample_click, sample_message

__all__ = ["NotifierCases", "RecordingNotifier", "Server", "sample_click", "sample_message"]
