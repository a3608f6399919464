"""The redirect service as a process of its own."""

from postbox_plugin.service.serve import serve

__all__ = ["serve"]
