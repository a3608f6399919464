"""django-anymail by its signal: Postmark, which takes JSON, and Amazon SES, which takes MIME, on servers of ours."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from anymail.exceptions import AnymailAPIError, AnymailCancelSend, AnymailRecipientsRefused
from anymail.signals import pre_send
from django.core import mail
from django.test import override_settings
from pytest_httpserver import HTTPServer
from sinks import Sink

from postbox_plugin import Postbox, Settings, new_key

from .django_cases import DjangoCases, connection, mailers, unwrapped
from .mail_cases import ADDRESSES, DOMAIN, HTML, message_id, tracking_links
from .services import SES_KEYS, PostmarkServer, SesServer

POSTMARK = "anymail.backends.postmark.EmailBackend"
SES = "anymail.backends.amazon_ses.EmailBackend"
ID = "X-Postbox-Message-Id"
INACTIVE = (
    "You tried to send to inactive recipients. Found inactive addresses: reader@example.com. Inactive recipients..."
)


@pytest.fixture
def postbox() -> Postbox:
    """What does the rewriting."""
    return Postbox(Settings(domain=DOMAIN, keys=[new_key()]))


@pytest.fixture
def postmark(httpserver: HTTPServer, postbox: Postbox) -> Iterator[PostmarkServer]:
    """What Postmark is here; anymail sends by it while a test runs."""
    service = PostmarkServer(httpserver)
    with override_settings(POSTBOX=postbox, ANYMAIL=postmark_settings(service), **unwrapped(POSTMARK)):
        yield service


def postmark_settings(service: PostmarkServer) -> dict[str, Any]:
    return {"POSTMARK_SERVER_TOKEN": "x", "POSTMARK_API_URL": service.url}


# One for all tests, since reading botocore's descriptions of services takes longer than a test.
SESSION = botocore.session.get_session()


def ses_settings(service: SesServer) -> dict[str, Any]:
    parameters = {"botocore_session": SESSION}
    return {
        "AMAZON_SES_SESSION_PARAMS": parameters,
        "AMAZON_SES_CLIENT_PARAMS": {"endpoint_url": service.url, "region_name": "ru-central1", **SES_KEYS},
    }


class AnymailCases(DjangoCases):
    """``POSTBOX`` is wrong where the adapter is not to be there: the signal is connected for good."""

    backend: str
    keeps_transfer_encoding = False

    def anymail(self, sink: Sink) -> dict[str, Any]:
        raise NotImplementedError

    def send(self, message: mail.EmailMessage, sink: Sink, postbox: Postbox | None) -> None:
        before = vars(message).copy()
        with override_settings(POSTBOX=postbox, ANYMAIL=self.anymail(sink), **unwrapped(self.backend)):
            assert connection().send_messages([message]) == 1
        assert {name: value for name, value in vars(message).items() if name != "anymail_status"} == {
            name: value for name, value in before.items() if name != "anymail_status"
        }
        assert message.anymail_status.message_id == "1"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
class TestPostmark(AnymailCases):
    """JSON."""

    backend = POSTMARK

    @pytest.fixture
    def sink(self, httpserver: HTTPServer) -> Sink:
        return PostmarkServer(httpserver)

    def anymail(self, sink: Sink) -> dict[str, Any]:
        assert isinstance(sink, PostmarkServer)
        return postmark_settings(sink)


class TestAmazonSes(AnymailCases):
    """MIME, in the API of SES v2."""

    backend = SES

    @pytest.fixture
    def sink(self, httpserver: HTTPServer) -> Sink:
        return SesServer(httpserver)

    def anymail(self, sink: Sink) -> dict[str, Any]:
        assert isinstance(sink, SesServer)
        return ses_settings(sink)


def newsletter(**changes: Any) -> mail.EmailMultiAlternatives:
    given = {"subject": "New books", "body": "Books", "to": ["reader@example.com"], **changes}
    message = mail.EmailMultiAlternatives(**given)
    message.attach_alternative(HTML, "text/html")
    return message


def content(message: mail.EmailMessage) -> dict[str, Any]:
    return {name: copy.copy(value) for name, value in vars(message).items() if name != "anymail_status"}


def test_nothing_but_links_and_id_is_added_to_the_json(postmark: PostmarkServer, postbox: Postbox) -> None:
    """No Date and no Message-ID, which the service makes, and which some services refuse."""
    connection().send_messages([newsletter()])
    connection().send_messages([newsletter(headers={"X-Postbox-Track": "no"})])
    tracked, plain = postmark.calls
    assert plain["HtmlBody"] == HTML
    assert [header["Name"] for header in tracked["Headers"]] == [ID]
    assert "Headers" not in plain
    assert {key: value for key, value in tracked.items() if key not in ("HtmlBody", "Headers")} == {
        key: value for key, value in plain.items() if key not in ("HtmlBody", "Headers")
    }
    assert [postbox.open(link.decode()).url for link in tracking_links(postmark.mails[0])] == ADDRESSES


def test_metadata_becomes_message_tags(postmark: PostmarkServer, postbox: Postbox) -> None:
    """With the tags of the header; the service gets it all the same."""
    message = newsletter(headers={"X-Postbox-Tags": "campaign=spring"})
    message.metadata = {"order": 1042, "cohort": "b"}
    connection().send_messages([message])
    (arrived,) = postmark.mails
    tags = [postbox.open(link.decode()).message_tags for link in tracking_links(arrived)]
    assert tags == [{"campaign": ("spring",), "order": ("1042",), "cohort": ("b",)}] * 3
    assert postmark.calls[0]["Metadata"] == {"order": 1042, "cohort": "b"}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((500, {}), AnymailAPIError),
        ((422, {"ErrorCode": 406, "Message": INACTIVE}), AnymailRecipientsRefused),
    ],
)
def test_after_a_mail_that_could_not_be_sent_the_next_reader_gets_links_of_their_own(
    answer: tuple[int, dict[str, Any]], error: type[Exception], postmark: PostmarkServer, postbox: Postbox
) -> None:
    """The same message object in a loop, with a failure in the middle; what the caller adds meanwhile is kept."""
    message = newsletter(headers={"X-Campaign": "spring"})
    message.attach("page.html", HTML, "text/html")
    before = content(message)
    postmark.answer = answer
    with pytest.raises(error):
        connection().send_messages([message])
    postmark.answer = (200, {})
    message.to = ["second@example.com"]
    message.extra_headers["X-Try"] = "2"
    message.attach("note.txt", "note", "text/plain")
    connection().send_messages([message])
    arrived = postmark.mails[-1]
    opened = [postbox.open(link.decode()) for link in tracking_links(arrived)]
    assert {link.headers["to"] for link in opened} == {("second@example.com",)}
    assert {link.message_id for link in opened} == {message_id(arrived)}
    assert [link.url for link in opened] == ADDRESSES
    assert [given["Name"] for given in postmark.calls[-1]["Attachments"]] == ["page.html", "note.txt"]
    after = content(message)
    assert after.pop("extra_headers") == {"X-Campaign": "spring", "X-Try": "2"}
    assert [attachment[0] for attachment in after.pop("attachments")] == ["page.html", "note.txt"]
    kept = {name: value for name, value in before.items() if name not in ("extra_headers", "attachments", "to")}
    assert {name: value for name, value in after.items() if name != "to"} == kept
    assert message.alternatives[0] is before["alternatives"][0]


def test_what_other_receivers_do_to_a_message_stays(postmark: PostmarkServer) -> None:
    """One that runs after ours adds to what is sent, and that is on the caller's message afterwards, as ever."""

    def receiver(message: Any, **_: Any) -> None:
        message.attach_alternative("<p>AMP</p>", "text/x-amp-html")
        message.extra_headers["X-Late"] = "yes"
        message.body = "Rewritten"

    message = newsletter(headers={"X-Postbox-Tags": "campaign=spring"})
    pre_send.connect(receiver)
    try:
        with override_settings(ANYMAIL={**postmark_settings(postmark), "IGNORE_UNSUPPORTED_FEATURES": True}):
            connection().send_messages([message])
    finally:
        pre_send.disconnect(receiver)
    (call,) = postmark.calls
    assert DOMAIN in call["HtmlBody"]
    assert call["TextBody"] == "Rewritten"
    assert [header["Name"] for header in call["Headers"]] == [ID, "X-Late"]
    assert [tuple(alternative) for alternative in message.alternatives] == [
        (HTML, "text/html"),
        ("<p>AMP</p>", "text/x-amp-html"),
    ]
    assert message.extra_headers == {"X-Postbox-Tags": "campaign=spring", "X-Late": "yes"}
    assert message.body == "Rewritten"


def test_a_mail_that_is_cancelled_is_not_lent_to_the_next(postmark: PostmarkServer, postbox: Postbox) -> None:
    """A receiver may call a mail off after ours; the next mail of the object is rewritten from its own content."""

    def receiver(**_: Any) -> None:
        raise AnymailCancelSend

    message = newsletter()
    pre_send.connect(receiver)
    try:
        assert connection().send_messages([message]) == 0
    finally:
        pre_send.disconnect(receiver)
    message.to = ["second@example.com"]
    connection().send_messages([message])
    (arrived,) = postmark.mails
    assert {postbox.open(link.decode()).headers["to"] for link in tracking_links(arrived)} == {("second@example.com",)}


def test_with_our_backend_in_front_it_is_rewritten_once(postmark: PostmarkServer, postbox: Postbox) -> None:
    """Then anymail is handed a copy, and its answer is on the caller's message."""
    message = newsletter(headers={"X-Postbox-Tags": "campaign=spring"})
    off = newsletter(headers={"X-Postbox-Track": "no"})
    before = content(message)
    with override_settings(**mailers(POSTMARK)):
        assert connection().send_messages([message, off]) == 2
    first, second = postmark.mails
    opened = [postbox.open(link.decode()) for link in tracking_links(first)]
    assert [link.message_tags for link in opened] == [{"campaign": ("spring",)}] * 3
    assert [header["Name"] for header in postmark.calls[0]["Headers"]] == [ID]
    assert not tracking_links(second)
    assert "Headers" not in postmark.calls[1]
    assert content(message) == before
    assert message.anymail_status.message_id == "1"


def test_a_service_that_takes_no_headers_gets_none(httpserver: HTTPServer, postbox: Postbox) -> None:
    """MailerSend refuses them from most of its customers; the links are tracked all the same."""
    httpserver.expect_request("/email").respond_with_data("{}", status=202, headers={"X-Message-Id": "1"})
    settings = {"MAILERSEND_API_TOKEN": "x", "MAILERSEND_API_URL": httpserver.url_for("")}
    backend = "anymail.backends.mailersend.EmailBackend"
    for around in (unwrapped, mailers):
        with override_settings(POSTBOX=postbox, ANYMAIL=settings, **around(backend)):
            connection().send_messages([newsletter(headers={"X-Postbox-Tags": "campaign=spring"})])
    for request, _ in httpserver.log:
        assert request.json is not None
        assert "headers" not in request.json
        assert DOMAIN in request.json["html"]
    assert len(httpserver.log) == 2


def test_a_wrong_setting_stops_no_mail(postmark: PostmarkServer, caplog: pytest.LogCaptureFixture) -> None:
    """It goes out untracked, and the log names what is wrong."""
    with override_settings(POSTBOX={"domain": DOMAIN, "keys": []}):
        assert connection().send_messages([newsletter()]) == 1
    assert postmark.calls[0]["HtmlBody"] == HTML
    assert "the message goes out untracked: settings.POSTBOX: keys: " in caplog.text


def test_without_anymail_the_error_names_the_extra() -> None:
    """Importing the module without django-anymail says what to install."""
    program = """
import sys
sys.modules["anymail"] = None
import postbox_plugin, postbox_hooks.mail
try:
    import postbox_hooks.mail.anymail
except postbox_plugin.PostboxError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 'pip install "postbox-plugin[anymail]"' in done.stdout
