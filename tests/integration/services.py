"""HTTP servers in the place of services that send mail: each keeps what it is sent, and the mail it stands for."""

from __future__ import annotations

import base64
import email
import json
import re
from email.utils import getaddresses
from typing import Any
from urllib.parse import parse_qs

from pytest_httpserver import HTTPServer
from sinks import Received, Sink
from werkzeug import Request, Response

from .mail_cases import Letter, mime

__all__ = ["SES_KEYS", "PostmarkServer", "SesServer"]

SES_KEYS = {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAM"}
KINDS = ("To", "Cc", "Bcc")
V1_ANSWER = """<{0}Response><{0}Result><MessageId>1</MessageId></{0}Result>
<ResponseMetadata><RequestId>2</RequestId></ResponseMetadata></{0}Response>"""


class Service(Sink):
    """A service: ``mails`` are what it would send, ``calls`` what it was asked to."""

    def __init__(self, server: HTTPServer) -> None:
        super().__init__()
        self.url = server.url_for("")
        self.requests: list[Request] = []
        self.calls: list[dict[str, Any]] = []

    def keep(self, raw: bytes, recipients: list[str]) -> None:
        message = email.message_from_bytes(raw)
        named = getaddresses([str(value) for kind in KINDS for value in message.get_all(kind, [])])
        envelope = recipients or [address for _, address in named]
        self.mails.append(Received(str(message["From"]), envelope, raw, True))


class SesServer(Service):
    """Amazon SES, v1 and v2, and so Yandex Cloud Postbox."""

    def __init__(self, server: HTTPServer) -> None:
        super().__init__(server)
        server.expect_request("/v2/email/outbound-emails", method="POST").respond_with_handler(self.v2)
        server.expect_request("/", method="POST").respond_with_handler(self.v1)

    def v2(self, request: Request) -> Response:
        call = json.loads(request.get_data())
        self.requests.append(request)
        self.calls.append(call)
        content = call["Content"]
        destination = call.get("Destination", {})
        if "Template" not in content:
            raw = base64.b64decode(content["Raw"]["Data"]) if "Raw" in content else self.assembled(call)
            self.keep(raw, [address for kind in KINDS for address in destination.get(f"{kind}Addresses", [])])
        headers = {"x-amzn-RequestId": "2"}
        return Response(json.dumps({"MessageId": "1"}), headers=headers, content_type="application/json")

    def v1(self, request: Request) -> Response:
        call = {name: values[0] for name, values in parse_qs(request.get_data(as_text=True)).items()}
        self.requests.append(request)
        self.calls.append(call)
        if call["Action"] == "SendRawEmail":
            destinations = [value for key, value in call.items() if re.fullmatch(r"Destinations\.member\.\d+", key)]
            self.keep(base64.b64decode(call["RawMessage.Data"]), destinations)
        return Response(V1_ANSWER.format(call["Action"]), content_type="text/xml")

    def assembled(self, call: dict[str, Any]) -> bytes:
        """The mail that SES makes of a simple message."""
        simple, destination = call["Content"]["Simple"], call["Destination"]
        letter = Letter(
            sender=call["FromEmailAddress"],
            to=tuple(destination.get("ToAddresses", ())),
            cc=tuple(destination.get("CcAddresses", ())),
            subject=simple["Subject"]["Data"],
            text=simple["Body"].get("Text", {}).get("Data", ""),
            html=simple["Body"].get("Html", {}).get("Data", ""),
            headers={header["Name"]: header["Value"] for header in simple.get("Headers", [])},
            attachments=tuple(
                (given["FileName"], base64.b64decode(given["RawContent"]), given["ContentType"])
                for given in simple.get("Attachments", [])
            ),
        )
        return mime(letter).as_bytes()


class PostmarkServer(Service):
    """Postmark, which takes JSON.

    :ivar answer: its HTTP status, and what is beside the usual in the answer.
    """

    def __init__(self, server: HTTPServer) -> None:
        super().__init__(server)
        self.answer: tuple[int, dict[str, Any]] = (200, {})
        server.expect_request("/email", method="POST").respond_with_handler(self.take)

    def take(self, request: Request) -> Response:
        call = json.loads(request.get_data())
        self.requests.append(request)
        self.calls.append(call)
        status, further = self.answer
        if status == 200:
            self.keep(self.assembled(call), self.addresses(call, *KINDS))
        answer = {"ErrorCode": 0, "Message": "OK", "MessageID": "1", **further}
        answer |= {"To": call["To"]} if "To" in call else {}
        return Response(json.dumps(answer), status=status, content_type="application/json")

    def addresses(self, call: dict[str, Any], *kinds: str) -> list[str]:
        return [address for _, address in getaddresses([call.get(kind, "") for kind in kinds]) if address]

    def assembled(self, call: dict[str, Any]) -> bytes:
        letter = Letter(
            sender=call["From"],
            to=tuple(filter(None, [call.get("To", "")])),
            cc=tuple(filter(None, [call.get("Cc", "")])),
            subject=call["Subject"],
            text=call.get("TextBody", ""),
            html=call.get("HtmlBody", ""),
            headers={header["Name"]: header["Value"] for header in call.get("Headers", [])},
            attachments=tuple(
                (given["Name"] or given["ContentID"], base64.b64decode(given["Content"]), given["ContentType"])
                for given in call.get("Attachments", [])
            ),
        )
        return mime(letter).as_bytes()
