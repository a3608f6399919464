"""boto3's clients for SES v1 and v2: what goes over the wire, to an HTTP server in the place of the cloud."""

from __future__ import annotations

import email
import io
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, cast

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ParamValidationError
from pytest_httpserver import HTTPServer
from sinks import Sink

from postbox_hooks.mail.boto3 import track
from postbox_plugin import Postbox, Settings, hookimpl, new_key
from postbox_plugin.outgoing import Rewriter

from .mail_cases import (
    ADDRESSES,
    DOMAIN,
    FULL,
    HTML,
    PLAIN,
    TEXT,
    Letter,
    MailCases,
    contents,
    message_id,
    mime,
    tracking_links,
)
from .services import SES_KEYS, SesServer

ID = "X-Postbox-Message-Id"


@pytest.fixture
def endpoint(httpserver: HTTPServer) -> SesServer:
    """What SES is here."""
    return SesServer(httpserver)


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture(scope="module")
def clients() -> dict[str, Any]:
    """The clients by name: making one takes longer than a test."""
    return {}


@pytest.fixture
def client(clients: dict[str, Any], endpoint: SesServer) -> Callable[[str], Any]:
    """A client of boto3 that sends to the endpoint, in Yandex Cloud's region."""

    def of(service: str) -> Any:
        if service not in clients:
            clients[service] = boto3.client(service, endpoint_url=endpoint.url, region_name="ru-central1", **SES_KEYS)
        return clients[service]

    return of


class SesCases(MailCases):
    """A message is the arguments of the call that sends it; for each mail the client is made to track, and not to."""

    service: str

    @pytest.fixture(autouse=True)
    def _client(self, client: Callable[[str], Any]) -> None:
        self.client = client(self.service)

    @pytest.fixture
    def sink(self, endpoint: SesServer) -> Sink:
        return endpoint

    def call(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def send(self, message: dict[str, Any], sink: Sink, postbox: Postbox | None) -> None:
        kept = repr(message)
        with track(self.client, postbox) if postbox else nullcontext():
            self.call(message)
        assert repr(message) == kept, "the caller's arguments are not changed"


def raw_of(letter: Letter) -> bytes:
    """The letter without its Bcc, which the envelope has."""
    message = mime(letter)
    del message["Bcc"]
    return message.as_bytes()


def readdressed(raw: bytes, address: str) -> bytes:
    return re.sub(rb"(?m)^To: .*?(?=\r\n)", f"To: {address}".encode(), raw)


class TestSendRawEmail(SesCases):
    """SES v1, with raw messages."""

    service = "ses"

    def build(self, letter: Letter) -> dict[str, Any]:
        return {"RawMessage": {"Data": raw_of(letter)}, "Destinations": [*letter.to, *letter.cc, *letter.bcc]}

    def readdress(self, message: dict[str, Any], address: str) -> None:
        message["RawMessage"] = {"Data": readdressed(message["RawMessage"]["Data"], address)}
        message["Destinations"] = [address]

    def call(self, message: dict[str, Any]) -> None:
        self.client.send_raw_email(**message)


class TestSendEmailRaw(SesCases):
    """SES v2, with raw messages."""

    service = "sesv2"

    def build(self, letter: Letter) -> dict[str, Any]:
        return {"Content": {"Raw": {"Data": raw_of(letter)}}, "Destination": destination(letter)}

    def readdress(self, message: dict[str, Any], address: str) -> None:
        message["Content"] = {"Raw": {"Data": readdressed(message["Content"]["Raw"]["Data"], address)}}
        message["Destination"] = {"ToAddresses": [address]}

    def call(self, message: dict[str, Any]) -> None:
        self.client.send_email(**message)


class TestSendEmailSimple(SesCases):
    """SES v2, with messages in parts."""

    service = "sesv2"
    keeps_transfer_encoding = False
    # SES signs what it makes of the parts; a signature does not come with them.
    test_a_signed_mail_is_untouched = None  # type: ignore[assignment]

    def build(self, letter: Letter) -> dict[str, Any]:
        return simple(letter)

    def readdress(self, message: dict[str, Any], address: str) -> None:
        message["Destination"] = {"ToAddresses": [address]}

    def call(self, message: dict[str, Any]) -> None:
        self.client.send_email(**message)

    def test_tracking_that_fails_stops_no_mail(
        self, sink: Sink, postbox: Postbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As in the suite, with what rewrites HTML that is in no message."""
        monkeypatch.setattr(Rewriter, "html", lambda *_: 1 / 0)
        self.assert_untouched(FULL, sink, postbox)
        assert "ZeroDivisionError" in caplog.text


def destination(letter: Letter) -> dict[str, list[str]]:
    given = {"ToAddresses": letter.to, "CcAddresses": letter.cc, "BccAddresses": letter.bcc}
    return {name: list(addresses) for name, addresses in given.items() if addresses}


def simple(letter: Letter, **further: Any) -> dict[str, Any]:
    """The arguments of ``send_email`` of SES v2 for a message in parts."""
    body = {"Text": {"Data": letter.text}} if letter.text else {}
    if letter.html:
        body["Html"] = {"Data": letter.html}
    message = {
        "Subject": {"Data": letter.subject},
        "Body": body,
        "Headers": [{"Name": name, "Value": value} for name, value in letter.headers.items()],
        "Attachments": [
            {"FileName": name, "RawContent": content, "ContentType": kind} for name, content, kind in letter.attachments
        ],
    }
    given = {"FromEmailAddress": letter.sender, "Destination": destination(letter), "Content": {"Simple": message}}
    return {**given, **further}


def simple_v1(**changes: Any) -> dict[str, Any]:
    """The arguments of ``send_email`` of SES v1."""
    message = {"Subject": {"Data": "New books"}, "Body": {"Text": {"Data": TEXT}, "Html": {"Data": HTML}}}
    return {
        "Source": "Shop <shop@example.com>",
        "Destination": {"ToAddresses": ["Reader <reader@example.com>"]},
        "Message": message,
        **changes,
    }


def links_in(html: str) -> list[str]:
    return re.findall(r"https?://click\.example\.com/c/[\w-]+", html)


def test_send_email_of_v1(client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox) -> None:
    """It takes no headers, so that the links alone are changed; tags are those of the message."""
    ses = client("ses")
    given = simple_v1(Tags=[{"Name": "campaign", "Value": "spring"}])
    kept = repr(given)
    ses.send_email(**given)
    untrack = track(ses, postbox).close
    ses.send_email(**given)
    untrack()
    ses.send_email(**given)
    assert repr(given) == kept
    before, sent, after = endpoint.calls
    opened = [postbox.open(link) for link in links_in(sent["Message.Body.Html.Data"])]
    assert [link.url for link in opened] == ADDRESSES
    assert {link.headers["to"] for link in opened} == {("Reader <reader@example.com>",)}
    assert [link.message_tags for link in opened] == [{"campaign": ("spring",)}] * 3
    assert {key: value for key, value in sent.items() if key != "Message.Body.Html.Data"} == {
        key: value for key, value in before.items() if key != "Message.Body.Html.Data"
    }
    assert after == before


@pytest.mark.parametrize(
    "changes",
    [
        {"Destination": {"ToAddresses": ["reader@example.com"], "BccAddresses": ["archive@example.com"]}},
        {"Tags": [{"Name": "X-Postbox-Track", "Value": "no"}, {"Name": "campaign", "Value": "spring"}]},
        {"Message": {"Subject": {"Data": "New books"}, "Body": {"Text": {"Data": TEXT}}}},
    ],
    ids=["bcc", "switched off", "text"],
)
def test_send_email_of_v1_leaves_alone(
    changes: dict[str, Any], client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """A mail to two, one without HTML, and one that is switched off, for which there is nothing but a tag."""
    untrack = track(client("ses"), postbox).close
    client("ses").send_email(**simple_v1(**changes))
    untrack()
    (sent,) = endpoint.calls
    assert DOMAIN not in str(sent)
    names = [value for key, value in sent.items() if key.startswith("Tags") and key.endswith("Name")]
    assert names == (["campaign"] if "Tags" in changes else [])


def test_templates_are_left_alone(client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox) -> None:
    """SES fills them in."""
    undo = [track(client("ses"), postbox), track(client("sesv2"), postbox)]
    template = {"TemplateName": "t", "TemplateData": '{"link": "http://example.com/"}'}
    client("sesv2").send_email(Destination={"ToAddresses": ["reader@example.com"]}, Content={"Template": template})
    client("ses").send_templated_email(
        Source="shop@example.com",
        Destination={"ToAddresses": ["reader@example.com"]},
        Template="t",
        TemplateData=template["TemplateData"],
    )
    for tracking in undo:
        tracking.close()
    first, second = endpoint.calls
    assert first["Content"] == {"Template": template}
    assert second["TemplateData"] == template["TemplateData"]


@pytest.mark.parametrize("letter", [PLAIN, FULL], ids=["plain", "full"])
def test_tags_of_the_call_are_message_tags(
    letter: Letter, client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """With those of the header, in raw and in simple messages; SES gets its own all the same."""
    tags = [{"Name": "campaign", "Value": "spring"}, {"Name": "shelf", "Value": "a"}, {"Name": "shelf", "Value": "b"}]
    letter = letter.with_headers(X_Postbox_Tags="cohort=b")
    untrack = track(client("sesv2"), postbox).close
    raw = {"Destination": destination(letter), "Content": {"Raw": {"Data": raw_of(letter)}}}
    for message in (raw, simple(letter)):
        client("sesv2").send_email(**message, EmailTags=tags)
    client("ses").send_raw_email(RawMessage=raw["Content"]["Raw"], Tags=tags)  # not tracked
    untrack()
    untrack = track(client("ses"), postbox).close
    client("ses").send_raw_email(RawMessage=raw["Content"]["Raw"], Tags=tags)
    untrack()
    first, second, untouched, third = endpoint.mails
    assert not tracking_links(untouched)
    wanted = {"campaign": ("spring",), "shelf": ("a", "b"), "cohort": ("b",)}
    for arrived in (first, second, third):
        assert [postbox.open(link.decode()).message_tags for link in tracking_links(arrived)] == [wanted] * 3
    assert [call["EmailTags"] for call in endpoint.calls[:2]] == [tags] * 2


@pytest.mark.parametrize("kind", [bytes, bytearray, bytes.decode, io.BytesIO])
def test_data_may_be_whatever_botocore_takes(
    kind: Callable[[bytes], Any], client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """Bytes, text, and files; without a Destination the headers say who it goes to."""
    raw = mime(PLAIN).as_bytes()
    untrack = track(client("sesv2"), postbox).close
    client("sesv2").send_email(Content={"Raw": {"Data": kind(raw)}})
    untrack()
    (arrived,) = endpoint.mails
    assert len(tracking_links(arrived)) == len(ADDRESSES)
    assert contents(arrived.raw, postbox) == contents(raw)


def test_the_envelope_decides(client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox) -> None:
    """A Destination of one, though To names two."""
    message = mime(PLAIN)
    message.replace_header("To", "one@example.com, two@example.com")
    untrack = track(client("sesv2"), postbox).close
    client("sesv2").send_email(
        Content={"Raw": {"Data": message.as_bytes()}}, Destination={"ToAddresses": ["One <one@example.com>"]}
    )
    untrack()
    assert len(tracking_links(endpoint.mails[0])) == len(ADDRESSES)


def test_the_signature_is_over_what_is_sent(
    client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """The request is signed (AWS Signature Version 4) after the links were put into it."""
    untrack = track(client("sesv2"), postbox).close
    client("sesv2").send_email(**simple(PLAIN))
    untrack()
    (request,) = endpoint.requests
    sent = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=\S+/(\S+)/ses/aws4_request, SignedHeaders=(\S+), Signature=(\w+)",
        request.headers["Authorization"],
    )
    assert sent is not None
    headers = {name: request.headers[name] for name in sent[2].split(";")}
    again = AWSRequest("POST", request.url, headers, request.get_data())
    again.context["timestamp"] = request.headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(*SES_KEYS.values()), "ses", sent[1].split("/")[-1])
    assert signer.signature(signer.string_to_sign(again, signer.canonical_request(again)), again) == sent[3]
    assert DOMAIN in request.get_data(as_text=True)


@pytest.mark.parametrize("header", [{}, {"X_Postbox_Track": "no"}])
def test_a_client_tracked_twice_rewrites_once(
    header: dict[str, str], client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """The second, with keys of its own, adds nothing; each is undone by itself."""
    other = Postbox(Settings(domain="other.example.com", keys=[new_key()]))
    undo = [track(client("sesv2"), postbox), track(client("sesv2"), other)]
    client("sesv2").send_email(**simple(PLAIN.with_headers(**header)))
    undo[0].close()
    client("sesv2").send_email(**simple(PLAIN))
    undo[1].close()
    client("sesv2").send_email(**simple(PLAIN))
    first, second, third = endpoint.mails
    assert len(tracking_links(first)) == (0 if header else 3)
    assert b"other.example.com" not in first.raw
    assert b"other.example.com" in second.raw.replace(b"=\r\n", b"")
    assert b"other.example.com" not in third.raw.replace(b"=\r\n", b"")


def test_a_simple_message_gets_no_sixteenth_header(
    client: Callable[[str], Any], endpoint: SesServer, postbox: Postbox
) -> None:
    """SES takes fifteen at the most, and the mail matters more than our id in it; an id that it comes with stays."""
    untrack = track(client("sesv2"), postbox).close
    for number, further in ((14, {}), (15, {}), (14, {ID: "QA_JPkU2fkpIWdkx"})):
        headers = {f"X-Header-{place}": "x" for place in range(number)}
        client("sesv2").send_email(**simple(Letter(html=HTML, headers=headers | further)))
    untrack()
    assert [len(call["Content"]["Simple"]["Headers"]) for call in endpoint.calls] == [15, 15, 15]
    assert ID not in email.message_from_bytes(endpoint.mails[1].raw)
    assert message_id(endpoint.mails[2]) == "QA_JPkU2fkpIWdkx"
    assert all(len(tracking_links(arrived)) == 3 for arrived in endpoint.mails)


def test_wrong_arguments_are_botocores_error(client: Callable[[str], Any], postbox: Postbox) -> None:
    """What is missing is named by botocore, as ever."""
    untrack = track(client("sesv2"), postbox).close
    with pytest.raises(ParamValidationError, match='Missing required parameter in Content\\.Raw: "Data"'):
        client("sesv2").send_email(Content={"Raw": {}})
    untrack()


def test_strict_lets_an_exception_through(client: Callable[[str], Any], endpoint: SesServer) -> None:
    """In a project's own tests a broken plugin is an error, and nothing is sent."""

    class Broken:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken")

    untrack = track(client("sesv2"), Postbox(Settings(domain=DOMAIN, keys=[new_key()], strict=True), [Broken()])).close
    for message in (simple(PLAIN), {"Content": {"Raw": {"Data": raw_of(PLAIN)}}}):
        with pytest.raises(RuntimeError, match="broken"):
            client("sesv2").send_email(**message)
    untrack()
    assert not endpoint.mails


def test_another_client_is_an_error(postbox: Postbox) -> None:
    """It says what to write."""
    other = boto3.client("sqs", region_name="eu-central-1", **SES_KEYS)
    for wrong in (other, boto3, None):
        with pytest.raises(TypeError, match=r"track\(\) needs a client of boto3 for SES.*write track\(boto3\.client"):
            track(cast(Any, wrong), postbox)
    client = boto3.client("sesv2", region_name="eu-central-1", **SES_KEYS)
    with pytest.raises(
        TypeError, match=r"track needs the Postbox that rewrites, not str: write track\(client, postbox"
    ):
        track(client, cast(Any, "postbox.toml"))


def test_without_boto3_the_error_names_the_extra() -> None:
    """Importing the module without botocore says what to install."""
    program = """
import sys
sys.modules["botocore"] = None
import postbox_plugin, postbox_hooks.mail
try:
    import postbox_hooks.mail.boto3
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "postbox-plugin[boto3]"' in done.stdout
