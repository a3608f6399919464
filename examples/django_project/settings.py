"""The settings of a project whose mails are tracked: what concerns mail, and nothing else."""

import os

import django

from postbox_plugin import new_key

DEBUG = True
SECRET_KEY = "for this example only"
USE_TZ = True
INSTALLED_APPS = [
    "newsletters",
    "postbox_hooks.mail.django",  # so that `manage.py check` looks at POSTBOX too
]

# In the shape of postbox.toml; the path of one does as well. The service that answers the links needs the same key:
# keep what `postbox keys new` prints in POSTBOX_KEY.
POSTBOX = {
    "domain": "click.example.com",
    "keys": [os.environ.get("POSTBOX_KEY") or new_key()],
}

MAIL_HOST = os.environ.get("MAIL_HOST", "localhost")
MAIL_PORT = int(os.environ.get("MAIL_PORT", "25"))

if django.VERSION >= (6, 1):  # a project needs only the half for its own Django
    MAILERS = {
        "default": {"BACKEND": "postbox_hooks.mail.django.EmailBackend", "OPTIONS": {"inner": "smtp"}},
        "smtp": {"OPTIONS": {"host": MAIL_HOST, "port": MAIL_PORT}},
    }
else:
    EMAIL_BACKEND = "postbox_hooks.mail.django.EmailBackend"
    POSTBOX_EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"  # the default: left out, it is the same
    EMAIL_HOST = MAIL_HOST
    EMAIL_PORT = MAIL_PORT
