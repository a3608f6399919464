"""The notifier ``sqs``: sends each click to a queue of Amazon SQS, or of Yandex Message Queue::

    [[notify]]
    use = "sqs"
    queue_url = "https://sqs.eu-central-1.amazonaws.com/123456789012/clicks"
    region = "eu-central-1"               # "ru-central1" for https://message-queue.api.cloud.yandex.net/...

The body is the notification as JSON; the message attributes ``eventId`` and ``messageId`` stand beside it. Clicks that
are in flight together share calls of SendMessageBatch, and of each call only those that the queue has not taken come
again. In a FIFO queue, a mail's clicks are one group, and a repetition within five minutes is dropped by its
``eventId``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from postbox_hooks._aws import Service, ServiceError, check_address, refusal
from postbox_plugin import Click, hookimpl

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import SendMessageBatchRequestEntryTypeDef

__all__ = ["SqsNotifier"]

CALLS: Final = 8
"""Calls at once."""
MESSAGES: Final = 10
"""Messages in a call, as SendMessageBatch takes them."""
BYTES: Final = 256 * 2**10
"""Bytes in a call, bodies and attributes, as every service of this protocol takes them."""
NAMES: Final = len("eventIdStringmessageIdString")
"""Bytes of a message beside its body and the values of its attributes."""


class SqsNotifier:
    """Sends each click to one queue.

    :param queue_url: the address of the queue; that of a FIFO queue ends in ``.fifo``.
    :param region: the region; looked for where boto3 does (``AWS_DEFAULT_REGION``, ``~/.aws/config``) if empty.
    :param endpoint_url: the service's address where it is not the host of ``queue_url``.
    :param access_key_id: the id of a static key; boto3 looks for credentials by itself if empty.
    :param secret_access_key: its secret.
    :param request_timeout: seconds to connect, and to wait for an answer.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if boto3 is not installed.
    """

    def __init__(
        self,
        *,
        queue_url: str,
        region: str = "",
        endpoint_url: str = "",
        access_key_id: str = "",
        secret_access_key: str = "",
        request_timeout: float = 10.0,
    ) -> None:
        check_address("queue_url", queue_url, "https://sqs.eu-central-1.amazonaws.com/123456789012/clicks")
        self._service: Final[Service[SendMessageBatchRequestEntryTypeDef]] = Service(
            "sqs",
            region=region,
            endpoint_url=endpoint_url or urlsplit(queue_url)._replace(path="", query="", fragment="").geturl(),
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            request_timeout=request_timeout,
        )
        self._queue_url: Final = queue_url
        self._is_fifo: Final = queue_url.endswith(".fifo")

    @hookimpl
    async def postbox_start(self) -> None:
        """Make the client, which connects with the first click.

        :raises SettingsError: if no region was found.
        """
        await self._service.start(self._send_batch, calls=CALLS, most=MESSAGES, most_bytes=BYTES)

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connections."""
        self._service.stop()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Send one click.

        :raises PostboxError: if the queue has not taken it.
        """
        body = _sendable(click.to_json().decode())
        message: SendMessageBatchRequestEntryTypeDef = {
            "Id": "",
            "MessageBody": body,
            "MessageAttributes": {
                "eventId": {"DataType": "String", "StringValue": click.event_id},
                "messageId": {"DataType": "String", "StringValue": click.message_id},
            },
        }
        if self._is_fifo:
            message["MessageGroupId"] = click.message_id
            message["MessageDeduplicationId"] = click.event_id
        await self._service.put(message, len(body.encode()) + len(click.event_id) + len(click.message_id) + NAMES)

    def _send_batch(
        self, client: SQSClient, messages: Sequence[SendMessageBatchRequestEntryTypeDef]
    ) -> Sequence[Exception | None]:
        for number, message in enumerate(messages):
            message["Id"] = str(number)
        answer = client.send_message_batch(QueueUrl=self._queue_url, Entries=messages)
        outcomes: dict[str, Exception | None] = {taken["Id"]: None for taken in answer.get("Successful", ())}
        for failed in answer.get("Failed", ()):
            outcomes[failed["Id"]] = refusal(
                failed["Code"], failed.get("Message", ""), is_busy=not failed["SenderFault"]
            )
        unsaid = ServiceError("the queue did not say what became of a message")
        return [outcomes.get(message["Id"], unsaid) for message in messages]


def _sendable(text: str) -> str:
    """The same JSON without the two characters that a message cannot hold: it may hold those of XML 1.0 only."""
    return text.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
