"""Services that speak Amazon's protocol, over boto3: clicks put into batches, errors that say what was refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

from postbox_hooks._batches import Batches, Busy
from postbox_hooks._threads import Thread
from postbox_plugin import PostboxError
from postbox_plugin.errors import MissingExtra, SettingsError

__all__ = ["Service", "ServiceError", "check_address", "refusal"]

_KEYS: Final = 'Write both, for example access_key_id = "..." and secret_access_key = "env:AWS_SECRET", or neither'

Entry = TypeVar("Entry")


class ServiceError(PostboxError):
    """A service did not take a click; the message says why."""


def refusal(code: str, message: str, *, is_busy: bool = False) -> PostboxError:
    """The error for what a service refused.

    :param code: its name for what is wrong.
    :param message: what else it says.
    :param is_busy: whether it may take the same in a moment.
    """
    text = f"{code}: {message}" if message else code
    return Busy(text) if is_busy or "Throttl" in code or "ThroughputExceeded" in code else ServiceError(text)


class Service(Generic[Entry]):
    """One service of one account, which is connected to with the first batch.

    :param name: its name, which is boto3's name of it and the name of our extra.
    :param region: the region; where boto3 looks for one by itself if empty.
    :param endpoint_url: its address where it is not Amazon's.
    :param access_key_id: the id of a static key; boto3 looks for credentials by itself if empty.
    :param secret_access_key: its secret.
    :param request_timeout: seconds to connect, and to wait for an answer.
    :raises SettingsError: if one of them cannot work.
    :raises MissingExtra: if boto3 is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        region: str,
        endpoint_url: str,
        access_key_id: str,
        secret_access_key: str,
        request_timeout: float,
    ) -> None:
        try:
            import boto3  # noqa: F401, PLC0415 - an extra
        except ImportError:
            raise MissingExtra(f"the notifier {name}", "boto3", name) from None
        if endpoint_url:
            check_address("endpoint_url", endpoint_url, f"https://{name}.eu-central-1.amazonaws.com")
        if bool(access_key_id) != bool(secret_access_key):
            missing = "secret_access_key" if access_key_id else "access_key_id"
            raise SettingsError(missing, "is missing: the other half of the key is there", _KEYS)
        if not 0 < request_timeout < float("inf"):
            raise SettingsError("request_timeout", f"{request_timeout} is no number of seconds to wait", "Write 10.0")
        self._name: Final = name
        self._region: Final = region
        self._endpoint_url: Final = endpoint_url
        self._access_key_id: Final = access_key_id
        self._secret_access_key: Final = secret_access_key
        self._timeout: Final = request_timeout
        self._client: Any = None
        self._batches: Batches[Entry] | None = None

    async def start(
        self,
        send: Callable[[Any, Sequence[Entry]], Sequence[Exception | None]],
        *,
        calls: int,
        most: int,
        most_bytes: int,
    ) -> None:
        """Make the client.

        :param send: called with the client and a batch; as ``hand_on`` of :class:`.Batches`.
        :param calls: the most calls at once.
        :param most: the most entries in a call.
        :param most_bytes: the most bytes in a call.
        :raises SettingsError: if no region was found.
        """
        threads = [Thread(f"postbox-{self._name}-{number}") for number in range(calls)]
        try:
            client = await threads[0].call(self._connect, calls)
        except BaseException:
            for thread in threads:
                thread.end()
            raise
        self._client = client
        self._batches = Batches(
            lambda entries: _explained(send, client, entries), threads, most=most, most_bytes=most_bytes
        )

    async def put(self, entry: Entry, size: int) -> None:
        """Hand one entry over, and return when the service has it.

        :param entry: the entry.
        :param size: its bytes, as the service counts them.
        :raises PostboxError: if the service has not taken it.
        """
        assert self._batches is not None, "postbox_start comes first"
        await self._batches.put(entry, size)

    def stop(self) -> None:
        """Close the connections."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None
            self._client.close()

    def _connect(self, calls: int) -> Any:
        import boto3  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, NoRegionError  # noqa: PLC0415

        config = Config(
            connect_timeout=self._timeout,
            read_timeout=self._timeout,
            max_pool_connections=calls,
            # What is sent has one form, and the service looks at it too: a tenth of the time of a call.
            parameter_validation=False,
            # Repetition is the host's.
            retries={"total_max_attempts": 1},
            user_agent_extra="postbox-plugin",
        )
        try:
            # A session of its own: the default one is not made for threads.
            session: Any = boto3.session.Session(
                aws_access_key_id=self._access_key_id or None,
                aws_secret_access_key=self._secret_access_key or None,
                region_name=self._region or None,
            )
            return session.client(self._name, endpoint_url=self._endpoint_url or None, config=config)
        except NoRegionError:
            raise SettingsError("region", "is missing", 'Write for example region = "eu-central-1"') from None
        except BotoCoreError as error:
            raise ServiceError(str(error)) from error


def check_address(key: str, address: str, example: str) -> None:
    """Check an address of a service.

    :param key: the option it is from.
    :param address: the address.
    :param example: what it could be.
    :raises SettingsError: if it is none, or holds a secret.
    """
    fix = f'Write for example {key} = "{example}"'
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise SettingsError(key, "is not an address", fix) from None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(key, "is not an http or https address with a host", fix)
    if "@" in parts.netloc:
        raise SettingsError(key, "has a user name", "Write access_key_id and secret_access_key instead")


def _explained(
    send: Callable[[Any, Sequence[Entry]], Sequence[Exception | None]], client: Any, entries: Sequence[Entry]
) -> Sequence[Exception | None]:
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    try:
        return send(client, entries)
    except ClientError as error:
        said = error.response.get("Error", {})
        raise refusal(said.get("Code") or "Unknown", said.get("Message") or "") from error
    except BotoCoreError as error:
        raise ServiceError(str(error)) from error
