"""The redirect service: ``postbox serve``, in one process or several."""

from postbox_plugin.service.logs import log_to_stderr
from postbox_plugin.service.serve import serve
from postbox_plugin.service.workers import serve_with_workers

__all__ = ["log_to_stderr", "serve", "serve_with_workers"]
