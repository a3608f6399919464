"""The notifier ``kinesis``: puts each click into a stream of Amazon Kinesis, or of Yandex Data Streams::

    [[notify]]
    use = "kinesis"
    stream = "clicks"                     # in Yandex Data Streams: "/ru-central1/FOLDER/DATABASE/STREAM"
    region = "eu-central-1"               # "ru-central1"
    endpoint_url = ""                     # "https://yds.serverless.yandexcloud.net"

A record's data is the notification as JSON, its partition key the mail's ``messageId``. Clicks that are in flight
together share a call of PutRecords. Records that a shard has no room for are put again within the same call, a few
times; what then is still refused comes again by itself, not with the others of its call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from postbox_hooks._aws import Service, refusal
from postbox_plugin import Click, hookimpl
from postbox_plugin.errors import SettingsError

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import PutRecordsRequestEntryTypeDef

__all__ = ["KinesisNotifier"]

CALLS: Final = 2
"""Calls at once: while one waits for its answer, the next one gathers what comes in."""
RECORDS: Final = 500
"""Records in a call, as PutRecords takes them."""
BYTES: Final = 5 * 2**20
"""Bytes in a call, data and partition keys, as every service of this protocol takes them."""


class KinesisNotifier:
    """Puts each click into one stream.

    :param stream: the name of the stream, or its ARN.
    :param region: the region; looked for where boto3 does (``AWS_DEFAULT_REGION``, ``~/.aws/config``) if empty.
    :param endpoint_url: the service's address where it is not Amazon's.
    :param access_key_id: the id of a static key; boto3 looks for credentials by itself if empty.
    :param secret_access_key: its secret.
    :param request_timeout: seconds to connect, and to wait for an answer.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if boto3 is not installed.
    """

    def __init__(
        self,
        *,
        stream: str,
        region: str = "",
        endpoint_url: str = "",
        access_key_id: str = "",
        secret_access_key: str = "",
        request_timeout: float = 10.0,
    ) -> None:
        if not stream:
            raise SettingsError("stream", "is empty", 'Write for example stream = "clicks"')
        self._service: Final[Service[PutRecordsRequestEntryTypeDef]] = Service(
            "kinesis",
            region=region,
            endpoint_url=endpoint_url,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            request_timeout=request_timeout,
        )
        self._stream: Final = stream

    @hookimpl
    async def postbox_start(self) -> None:
        """Make the client, which connects with the first click.

        :raises SettingsError: if no region was found.
        """
        await self._service.start(self._put_records, calls=CALLS, most=RECORDS, most_bytes=BYTES)

    @hookimpl
    async def postbox_stop(self) -> None:
        """Close the connections."""
        self._service.stop()

    @hookimpl
    async def postbox_click(self, click: Click) -> None:
        """Put one click.

        :raises PostboxError: if the stream has not taken it.
        """
        data = click.to_json()
        await self._service.put({"Data": data, "PartitionKey": click.message_id}, len(data) + len(click.message_id))

    def _put_records(
        self, client: KinesisClient, records: Sequence[PutRecordsRequestEntryTypeDef]
    ) -> Sequence[Exception | None]:
        if self._stream.startswith("arn:"):
            answer = client.put_records(StreamARN=self._stream, Records=records)
        else:
            answer = client.put_records(StreamName=self._stream, Records=records)
        # Both of its codes, ProvisionedThroughputExceededException and InternalFailure, pass by themselves.
        return [
            refusal(code, record.get("ErrorMessage", ""), is_busy=True) if (code := record.get("ErrorCode")) else None
            for record in answer["Records"]
        ]
