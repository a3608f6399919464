"""What becomes of a message between the client and the upstream server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from postbox_hooks.relay.answers import Answer
from postbox_hooks.relay.path import Addressed
from postbox_hooks.relay.splitting import Accepted, summary
from postbox_hooks.relay.trace import goes_round
from postbox_hooks.relay.transaction import Transaction

__all__ = ["RECIPIENT_TAG", "Delivery", "Rewrite"]

RECIPIENT_TAG: Final = "recipient"
"""The message tag that tells whose copy it was, in the clicks of a mail that was split."""

IN_LOOP: Final = 64 * 1024
"""The most bytes of a message that is rewritten in the loop: about two milliseconds."""

Rewrite = Callable[[bytes, Sequence[str], Mapping[str, str]], bytes]
"""Rewrites a message for these recipients, with these message tags; gives the message itself back if it leaves it
alone.
"""

_LOOP: Final = Answer(554, "5.4.6 Too many hops: this mail goes round in circles")
_HAVE_IT: Final = Answer(250, "2.0.0 Accepted before")


class Delivery:
    """Rewrites messages and sends them.

    :param rewrite: does the rewriting.
    :param split: whether a message to several recipients becomes one to each.
    :param quick: whether no plugin has a say in the rewriting.
    """

    def __init__(self, rewrite: Rewrite, *, split: bool, quick: bool) -> None:
        self._rewrite: Final = rewrite
        self._split: Final = split
        self._in_loop: Final = IN_LOOP if quick else 0
        self._accepted: Final = Accepted()

    async def deliver(self, transaction: Transaction, message: bytes, trace: bytes) -> Answer:
        """Send a message to the recipients of a transaction.

        :param transaction: with at least one recipient.
        :param message: as it came.
        :param trace: the header to put on top.
        """
        if goes_round(message):
            return _LOOP
        # Two commands for one address are one recipient.
        recipients = {command.mailbox: command for command in transaction.recipients}
        content = await self._rewritten(message, list(recipients), {})
        if self._split and len(recipients) > 1:
            first, *_ = recipients
            if await self._rewritten(message, [first], {}) != content:
                return await self._to_each(transaction, recipients, message, trace)
        return await transaction.data(_under(trace, content, message, transaction.size_limit))

    async def _to_each(
        self, transaction: Transaction, recipients: Mapping[str, Addressed], message: bytes, trace: bytes
    ) -> Answer:
        key = self._accepted.key(transaction.sender.path, message)
        before = self._accepted.by(key)
        answers = {address: _HAVE_IT for address in recipients if address in before}
        try:
            for address, command in recipients.items():
                if address in before:
                    continue
                content = await self._rewritten(message, [address], {RECIPIENT_TAG: address})
                content = _under(trace, content, message, transaction.size_limit)
                answers[address] = await transaction.data_to(command, content)
                if transaction.lost and not answers[address].accepts:
                    break
        finally:  # also when the client hangs up
            having = before | {address for address, answer in answers.items() if answer.accepts}
            if having >= recipients.keys() or not having:
                self._accepted.forget(key)
            else:
                self._accepted.remember(key, having)
        return summary(answers.values(), len(recipients))

    async def _rewritten(self, message: bytes, recipients: Sequence[str], tags: Mapping[str, str]) -> bytes:
        # A small message is rewritten in less time than it takes a busy loop to hand over to a thread and back; but
        # plugins may take their time.
        if len(message) <= self._in_loop:
            return self._rewrite(message, recipients, tags)
        return await asyncio.to_thread(self._rewrite, message, recipients, tags)


def _under(trace: bytes, content: bytes, message: bytes, limit: int) -> bytes:
    """The message with tracking links below the trace header, or as it came where they would make it too large for the
    upstream server.
    """
    fits = not limit or len(trace) + len(content) <= limit
    return trace + (content if fits else message)
