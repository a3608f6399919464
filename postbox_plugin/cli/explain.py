"""``postbox explain``: what would become of a message and of each of its links."""

from __future__ import annotations

from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP

from postbox_plugin.cli.options import (
    AsJson,
    Config,
    MessageFile,
    Recipients,
    Sender,
    Subject,
    Tags,
    body_type,
    make_postbox,
    read_input,
    tags_given,
)
from postbox_plugin.cli.output import print_json, print_pairs, print_table
from postbox_plugin.cli.rewrite import body_mail, html_of
from postbox_plugin.links.report import Place, Report
from postbox_plugin.mail import Tags as TagsOfLink

__all__ = ["explain"]


def explain(
    file: MessageFile,
    *,
    recipient: Recipients = None,
    sender: Sender = "",
    subject: Subject = "",
    tag: Tags = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Show each link of a message: tracked, or why not. Changes nothing.

    \b
    Examples:
      postbox explain order.eml
      postbox explain - --json < order.eml
      postbox explain offer.html --sender shop@example.com -r anna@example.com
      postbox explain offer.mjml --sender shop@example.com -r anna@example.com
    """
    postbox = make_postbox(config)
    data = read_input(file)
    if body_type(file):
        mail = body_mail(file, sender, recipient, subject, tag)
        message = EmailMessage(policy=SMTP)
        for name, value in mail.headers:
            message[name] = value
        message.set_content(html_of(postbox, file, data), subtype="html")
        data = message.as_bytes()
    report = postbox.explain(data, recipients=recipient, message_tags=tags_given(tag))
    if as_json:
        print_json(report)
        return
    print_pairs(_summary(report))
    if report.links:
        print()  # noqa: T201
        rows = (
            (link.index, line, link.tag, "tracked" if link.track else link.reason, link.url, _tags(link.tags))
            for link, line in zip(report.links, _lines(report.places), strict=True)
        )
        print_table(("link", "line", "element", "what becomes of it", "address", "tags"), rows)
    if report.notices:
        print()  # noqa: T201
        shown = (
            ("" if one.link is None else one.link, "" if one.line is None else one.line, one.kind, one.text)
            for one in report.notices
        )
        print_table(("link", "line", "to know", ""), shown)


def _summary(report: Report) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = [
        ("message", report.reason or f"{len(report.tracked)} of {len(report.links)} links are tracked"),
        ("recipients", ", ".join(report.recipients) or "none"),
        ("size", f"{report.size_before} bytes, {report.size_after} as it would be sent"),
    ]
    if report.message_tags:
        pairs.append(("message tags", _tags(report.message_tags)))
    return pairs


def _lines(places: tuple[Place, ...]) -> Iterator[str]:
    """Line and column of each link; the number of its part too, where there are several."""
    several = any(place.part for place in places)
    for place in places:
        yield (f"{place.part}:" if several else "") + f"{place.line}:{place.column}"


def _tags(tags: TagsOfLink) -> str:
    return "; ".join(f"{key}: {', '.join(values)}" for key, values in tags.items())
