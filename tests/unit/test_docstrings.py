"""Every public name says what it is: its fields, its arguments, and what it raises."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec
import pytest

import postbox_plugin
from postbox_plugin.errors import MissingExtra

MODULES = [
    "postbox_plugin",
    "postbox_plugin.commands",
    "postbox_plugin.errors",
    "postbox_plugin.redirect",
    "postbox_plugin.stats",
    "postbox_plugin.testing",
    "postbox_hooks.leave_alone",
    "postbox_hooks.machines",
    "postbox_hooks.mail.aiosmtplib",
    "postbox_hooks.mail.flask_mail",
    "postbox_hooks.mail.flask_mailman",
    "postbox_hooks.mail.anymail",
    "postbox_hooks.mail.boto3",
    "postbox_hooks.mail.django",
    "postbox_hooks.mail.emails",
    "postbox_hooks.mail.smtplib",
    "postbox_hooks.notify.kafka",
    "postbox_hooks.notify.kinesis",
    "postbox_hooks.mjml",
    "postbox_hooks.notify.log",
    "postbox_hooks.notify.nats",
    "postbox_hooks.notify.rabbitmq",
    "postbox_hooks.notify.redis",
    "postbox_hooks.notify.sqs",
    "postbox_hooks.notify.webhook",
    "postbox_hooks.optouts",
    "postbox_hooks.relay.settings",
]


def public() -> Iterator[tuple[str, Any]]:
    """The classes and functions that users name, and the public methods of the classes."""
    for module in MODULES:
        try:
            imported = importlib.import_module(module)
        except MissingExtra:  # tox -e none
            continue
        for name in imported.__all__:
            value = getattr(imported, name)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            yield f"{module}.{name}", value
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    # What implements a hook is documented by its specification.
                    # What pytest collects has fixtures for arguments.
                    if not method.startswith(("_", "postbox_", "test_")) and inspect.isfunction(
                        inspect.unwrap(getattr(value, method))
                    ):
                        yield f"{module}.{name}.{method}", function


@pytest.mark.parametrize(("name", "value"), [pytest.param(*item, id=item[0]) for item in public()])
def test_what_is_public_is_documented(name: str, value: Any) -> None:
    """A public class, function or method has a docstring that names each of its fields or arguments."""
    text = inspect.getdoc(value) or ""
    assert value.__doc__, name
    if inspect.isclass(value) and issubclass(value, msgspec.Struct):
        wanted = [(field.name, "ivar") for field in msgspec.structs.fields(value) if field.name != "event_type"]
    elif inspect.isclass(value) and ("__init__" not in vars(value) or Protocol in value.__bases__):
        wanted = []
    else:
        # A classmethod and a context manager are documented where they are written.
        function = value.__init__ if inspect.isclass(value) else getattr(value, "__func__", value)
        parameters = inspect.signature(function).parameters
        wanted = [(parameter, "param") for parameter in parameters if parameter not in ("self", "cls")]
    missing = [field for field, kind in wanted if f":{kind} {field}:" not in text and f":param {field}:" not in text]
    assert missing == [] or "as for :" in text, name


def test_errors_say_when_they_are_raised() -> None:
    """What can raise one of our errors on purpose says which."""
    for name in ("from_file", "from_env", "from_mapping", "before_send", "open", "running"):
        assert ":raises " in (inspect.getdoc(getattr(postbox_plugin.Postbox, name)) or ""), name
