"""MJML (https://mjml.io), compiled with the ``mjml`` library, and more exactly than by it alone.

``postbox:tags`` and ``postbox:no-track`` on components arrive on the links that these make; what is in ``mj-text`` and
its kin arrives as it was written; and what is wrong is said with file, line and component.
"""

from __future__ import annotations

from postbox_hooks.mjml.errors import MjmlError, Problem
from postbox_hooks.mjml.plugin import MjmlCompiler, to_html

__all__ = ["MjmlCompiler", "MjmlError", "Problem", "to_html"]
