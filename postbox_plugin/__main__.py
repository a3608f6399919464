"""``python -m postbox_plugin`` is ``postbox``."""

from postbox_plugin.cli import main

if __name__ == "__main__":
    main()
