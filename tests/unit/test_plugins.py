"""Plugins: what is taken for one, in which order they are called, and that none keeps anything from getting through."""

from __future__ import annotations

import asyncio
import logging
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
import pytest

import postbox_plugin
from postbox_plugin import Click, Link, Mail, Postbox, Settings, Verdict, discovery, hookimpl, hookspecs, new_key
from postbox_plugin.errors import PluginError, SettingsError
from postbox_plugin.plugins import PluginHost
from postbox_plugin.settings import NotifySettings, PluginSettings, from_mapping
from postbox_plugin.testing import RecordingNotifier, sample_click, sample_message


def host(
    *plugins: object,
    notify: tuple[NotifySettings, ...] = (),
    strict: bool = False,
    blocks: tuple[PluginSettings, ...] = (),
) -> PluginHost:
    return PluginHost(plugins, notify, strict=strict, source="postbox.toml", blocks=blocks)


class Append:
    """Adds its word to the HTML."""

    def __init__(self, word: str) -> None:
        self.name = word
        self.word = word

    @hookimpl
    def postbox_before_send(self, mail: Mail) -> None:
        mail.html += self.word


def test_before_send_hooks_fold_in_the_order_given() -> None:
    """Each before-send hook sees what those before it made of the mail."""
    mail = Mail(html="0")
    host(Append("1"), Append("2"), Append("3")).before_send(mail)
    assert mail.html == "0123"


def test_tryfirst_and_trylast_are_honoured() -> None:
    """pluggy's own ordering marks move a hook before or behind those of the order given."""

    class Late:
        @hookimpl(trylast=True)
        def postbox_before_send(self, mail: Mail) -> None:
            mail.html += "z"

    class Early:
        @hookimpl(tryfirst=True)
        def postbox_before_send(self, mail: Mail) -> None:
            mail.html += "a"

    mail = Mail(html="0")
    host(Late(), Append("m"), Early()).before_send(mail)
    assert mail.html == "0amz"


def test_the_change_of_a_plugin_that_raises_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    """A before-send hook that fails half-way is undone and logged, and the next one is called all the same."""

    class Breaks:
        @hookimpl
        def postbox_before_send(self, mail: Mail) -> None:
            mail.html = "ruined"
            mail.tags = {"half": "done"}
            mail.track = False
            raise RuntimeError("broken plugin")

    mail = Mail(html="0", tags={"campaign": "spring"})
    host(Breaks(), Append("1")).before_send(mail)
    assert (mail.html, dict(mail.tags), mail.track) == ("01", {"campaign": ("spring",)}, True)
    assert "Breaks failed in postbox_before_send" in caplog.text


def test_strict_lets_the_exception_of_a_plugin_through() -> None:
    """With strict=True, for tests, a failing before-send hook is not hidden."""

    class Breaks:
        @hookimpl
        def postbox_before_send(self) -> None:
            raise RuntimeError("broken plugin")

    with pytest.raises(RuntimeError, match="broken plugin"):
        host(Breaks(), strict=True).before_send(Mail(html="x"))


def test_a_hook_cannot_hand_back_something_else_than_text() -> None:
    """HTML that is no text counts as a failure of the plugin."""

    class Bytes:
        @hookimpl
        def postbox_before_send(self, mail: Mail) -> None:
            mail.html = b"<p>"  # type: ignore[assignment]

    mail = Mail(html="0")
    host(Bytes()).before_send(mail)
    assert mail.html == "0"


def test_the_first_link_hook_with_an_opinion_decides() -> None:
    """postbox_link is asked plugin by plugin until one answers; one that fails has no opinion."""

    class Silent:
        @hookimpl
        def postbox_link(self) -> None:
            return None

    class Broken:
        @hookimpl
        def postbox_link(self, link: Link) -> Link:
            raise ValueError(link.url)

    class Decides:
        @hookimpl
        def postbox_link(self, link: Link, mail: Mail) -> Link:
            return link.replace(tags={"to": mail.recipient}).replace(track=False)

    class TooLate:
        @hookimpl
        def postbox_link(self, link: Link) -> Link:
            raise AssertionError("not to be asked")

    link = Link(tag="a", url="https://example.com/", index=0, start=0, end=1)
    decided = host(Silent(), Broken(), Decides(), TooLate()).link(link, {}, Mail(recipient="a@example.com"))
    assert (decided.track, decided.tags) == (False, {"to": ("a@example.com",)})
    assert decided.reason == "a plugin's decision"


def test_a_link_hook_cannot_lead_the_reader_elsewhere() -> None:
    """Whatever a plugin returns, the address that is sealed is the one its author wrote."""

    class Hijack:
        @hookimpl
        def postbox_link(self, link: Link) -> Link:
            return Link(tag="a", url="https://evil.example/", index=7, start=0, end=1)

    link = Link(tag="a", url="https://example.com/", index=0, start=0, end=1)
    decided = host(Hijack()).link(link, {}, Mail())
    assert (decided.url, decided.index) == ("https://example.com/", 0)


def test_clicks_are_human_unless_a_plugin_says_otherwise() -> None:
    """Without a verdict a click is taken for a human's; the first verdict counts."""

    class Prefetch:
        @hookimpl
        def postbox_classify(self, request_headers: dict[str, str]) -> Verdict | None:
            return Verdict("machine", "prefetch") if "Sec-Purpose" in request_headers else None

    plugins = host(Prefetch())
    assert plugins.classify(sample_click(), {}) == Verdict("human")
    assert plugins.classify(sample_click(), {"Sec-Purpose": "prefetch"}) == Verdict("machine", "prefetch")


def test_a_class_is_not_a_plugin() -> None:
    """A class where an instance is due is an error that says what to write."""
    with pytest.raises(PluginError, match=r"RecordingNotifier is a class: register an instance, RecordingNotifier\(\)"):
        host(RecordingNotifier)


def test_an_unknown_hook_is_an_error() -> None:
    """A misspelt hook is not silently never called."""

    class Typo:
        @hookimpl
        def postbox_clicks(self, click: Click) -> None: ...

    with pytest.raises(PluginError, match=r"there is no hook postbox_clicks; the hooks are .*postbox_click,"):
        host(Typo())


def test_a_forgotten_marker_is_an_error() -> None:
    """A hook without @hookimpl, which pluggy would pass over, is an error that says where to put it."""

    class Forgot:
        def postbox_click(self, click: Click) -> None: ...

    with pytest.raises(PluginError, match=r"postbox_click is not marked; put @postbox_plugin\.hookimpl above it"):
        host(Forgot())


def test_an_argument_that_no_hook_has_is_an_error() -> None:
    """An implementation that asks for what the specification does not offer is refused when it is registered."""

    class Asks:
        @hookimpl
        def postbox_click(self, klick: Click) -> None: ...

    with pytest.raises(PluginError, match="klick"):
        host(Asks())


def test_wrappers_are_refused() -> None:
    """Clicks are dispatched plugin by plugin, so there is nothing to wrap, and that is said."""

    class Wraps:
        @hookimpl(wrapper=True)
        def postbox_click(self, click: Click) -> Any:
            return (yield)

    with pytest.raises(PluginError, match="postbox_click cannot be a wrapper"):
        host(Wraps())


def test_a_module_can_be_a_plugin() -> None:
    """Functions of a module are hooks like methods of an instance."""
    module = types.ModuleType("utm")

    @hookimpl
    def postbox_before_send(mail: Mail) -> None:
        mail.html += "!"

    module.postbox_before_send = postbox_before_send  # type: ignore[attr-defined]
    mail = Mail(html="x")
    host(module).before_send(mail)
    assert mail.html == "x!"


def test_notifiers_keep_their_name_and_limits() -> None:
    """A [[notify]] block gives its notifier the name and the limits that it says."""
    settings = from_mapping(
        {
            "domain": "click.example.com",
            "keys": [new_key()],
            "notify": [{"use": "log", "name": "audit", "concurrency": 3, "timeout": 2.5, "retry_for": 60}],
        }
    )
    audit, recording = sorted(
        host(RecordingNotifier(), notify=tuple(settings.notify)).notifiers(), key=lambda n: n.name
    )
    assert (audit.name, audit.concurrency, audit.timeout, audit.retry_for) == ("audit", 3, 2.5, 60)
    assert (recording.name, recording.concurrency) == ("recording", 64)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"use": "logg"}, r"postbox\.toml: notify\[0\]\.use: there is no notifier 'logg'\. Installed are: .*log"),
        ({"use": "log", "pth": "x"}, r"postbox\.toml: notify\[0\]\.pth: is not a setting\. Did you mean 'path'\?"),
        ({"use": "log", "path": 5}, r"postbox\.toml: notify\[0\]\.path: has the wrong type"),
        ({"use": "webhook"}, r"postbox\.toml: notify\[0\]\.url: is missing\. Add url = "),
    ],
)
def test_a_wrong_block_is_an_error_with_file_key_and_remedy(block: dict[str, Any], message: str) -> None:
    """What is wrong with a [[notify]] block is said where it is noticed: when its notifier is made."""
    options = {key: value for key, value in block.items() if key != "use"}
    with pytest.raises(SettingsError, match=message):
        host(notify=(NotifySettings(use=block["use"], options=options),)).notifiers()


def test_two_notifiers_of_one_name_are_an_error() -> None:
    """Their clicks would wait under one name in the outbox."""
    with pytest.raises(PluginError, match="'recording'"):
        host(RecordingNotifier(), RecordingNotifier()).notifiers()


def installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, group: str = discovery.PLUGINS, /, **modules: str
) -> None:
    """Pretend that distributions bring these modules as plugins, or the class ``Plugin`` of each as an optional one."""
    monkeypatch.syspath_prepend(str(tmp_path))
    points = []
    for name, code in modules.items():
        (tmp_path / f"installed_{name}.py").write_text(code)
        value = f"installed_{name}:Plugin" if group == discovery.OPTIONAL else f"installed_{name}"
        points.append(EntryPoint(name, value, group))
    monkeypatch.setattr(discovery, "entry_points", lambda group: [point for point in points if point.group == group])


GOOD = """
from postbox_plugin import hookimpl

@hookimpl
def postbox_before_send(mail):
    mail.html += "installed"
"""


def test_an_installed_plugin_is_on_and_a_broken_one_takes_nothing_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Plugins of the group `postbox` are loaded when first needed; one that fails to import is named in the log."""
    installed(monkeypatch, tmp_path, good=GOOD, bad="import no_such_module")
    plugins = host(Append(" given"))
    mail = Mail(html="")
    mail.html_parts = [""]
    plugins.before_send(mail)
    assert mail.html == "installed given"
    assert "cannot load bad" in caplog.text
    assert "no_such_module" in caplog.text
    states = {info.name: (info.state, info.error) for info in plugins.infos()}
    assert states["good"] == ("active", "")
    assert states["bad"][0] == "failed"
    assert "no_such_module" in states["bad"][1]


def test_installed_plugins_can_be_blocked_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """POSTBOX_DISABLED_PLUGINS keeps a plugin from being loaded at all."""
    installed(monkeypatch, tmp_path, good=GOOD, other="raise SystemError('loaded')")
    monkeypatch.setenv(discovery.DISABLED_VARIABLE, "other, good")
    plugins = host(Append("given"))
    mail = Mail(html="0")
    plugins.before_send(mail)
    assert mail.html == "0given"
    assert {info.name: info.state for info in plugins.infos()}["good"] == "blocked"


OPTIONAL = """
from postbox_plugin import hookimpl

class Plugin:
    def __init__(self, *, word: str = "optional", times: int = 1) -> None:
        if times < 1:
            raise ValueError("times is below 1")
        self.word = word * times

    @hookimpl
    def postbox_before_send(self, mail):
        mail.html += self.word
"""


def test_an_optional_plugin_is_off_until_a_block_uses_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A [[plugin]] block switches it on, with its options, after what is installed and before what is given."""
    installed(monkeypatch, tmp_path, discovery.OPTIONAL, word=OPTIONAL)
    off = Mail(html="0")
    host().before_send(off)
    assert off.html == "0"
    assert [(info.name, info.kind, info.state) for info in host().infos()] == [("word", "optional", "available")]

    block = PluginSettings(use="word", options={"word": "!", "times": 2})
    plugins = host(Append("given"), blocks=(block,))
    on = Mail(html="0")
    plugins.before_send(on)
    assert on.html == "0!!given"
    assert [(info.name, info.kind, info.state) for info in plugins.infos()] == [
        ("word", "optional", "active"),
        ("given", "given", "active"),
    ]


def test_a_block_gives_options_to_a_plugin_that_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block that names an installed plugin takes its place: it is there once, with those options."""
    plugins = host(blocks=(PluginSettings(use="machines", options={"moments": 10.0}),))
    (machines,) = (info for info in plugins.infos() if info.name == "machines")
    assert (machines.kind, machines.state) == ("installed", "active")
    monkeypatch.setenv(discovery.DISABLED_VARIABLE, "machines")
    blocked = host(blocks=(PluginSettings(use="machines"),)).infos()
    assert [info.state for info in blocked if info.name == "machines"] == ["blocked"]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"use": "wrod"}, r"postbox\.toml: plugin\[0\]\.use: there is no plugin 'wrod'\. Installed are: word"),
        ({"use": "word", "wrod": "x"}, r"postbox\.toml: plugin\[0\]\.wrod: is not a setting\. Did you mean 'word'\?"),
        ({"use": "word", "word": 5}, r"postbox\.toml: plugin\[0\]\.word: has the wrong type"),
        ({"use": "word", "times": 0}, r"postbox\.toml: plugin\[0\]: times is below 1"),
    ],
)
def test_a_wrong_plugin_block_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, block: dict[str, Any], message: str
) -> None:
    """What is wrong with a [[plugin]] block is said when the Postbox is made, before a mail is sent without it."""
    installed(monkeypatch, tmp_path, discovery.OPTIONAL, word=OPTIONAL)
    options = {key: value for key, value in block.items() if key != "use"}
    with pytest.raises(SettingsError, match=message):
        host(blocks=(PluginSettings(use=block["use"], options=options),))


def test_a_module_has_no_options(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A plugin that is no class takes none, and an optional one that cannot be loaded is an error."""
    # Names of their own, for what is loaded once is remembered.
    installed(monkeypatch, tmp_path, plain=GOOD, absent="import no_such_module")
    with pytest.raises(SettingsError, match=r"plugin\[0\]: 'plain' has no options\. Remove word"):
        host(blocks=(PluginSettings(use="plain", options={"word": "x"}),))
    with pytest.raises(PluginError, match=r"plugin\[0\]: cannot load 'absent' .*no_such_module"):
        host(blocks=(PluginSettings(use="absent"),))


def test_plugins_that_are_no_notifiers_are_started_and_stopped_too(tmp_path: Path) -> None:
    """postbox_start and postbox_stop are called once each, around everything else, sync or async."""
    events: list[str] = []

    class Sync:
        @hookimpl
        def postbox_start(self) -> None:
            events.append("start")

        @hookimpl
        def postbox_stop(self) -> None:
            events.append("stop")

    class Async:
        @hookimpl
        async def postbox_start(self) -> None:
            events.append("async start")
            raise RuntimeError("cannot connect")

    async def run() -> None:
        postbox = Postbox(
            Settings(domain="click.example.com", keys=[new_key()], spool=str(tmp_path / "spool")),
            plugins=[Sync(), Async()],
        )
        async with postbox.running():
            events.append("running")

    asyncio.run(run())
    assert events == ["start", "async start", "running", "stop"]


@pytest.mark.parametrize("project", ["postbox", "newsletter"])
def test_a_framework_with_its_own_manager_registers_ours(project: str) -> None:
    """Our specifications and our plugin work in a pluggy manager of any project name."""
    postbox = Postbox(Settings(domain="click.example.com", keys=[new_key()]))
    manager = pluggy.PluginManager(project)
    manager.add_hookspecs(hookspecs if project == "postbox" else hookspecs.for_project(project))
    manager.register(postbox.as_plugin(project))
    manager.check_pending()
    message = sample_message()
    sent = manager.hook.postbox_rewrite(message=message, recipients=["reader@example.com"], message_tags={"a": "b"})
    assert "https://click.example.com/c/" in sent.as_string()
    assert "click.example.com" not in message.as_string()


def test_every_hook_is_documented_with_its_arguments() -> None:
    """Each specification says when it is called and names each of its parameters; all are public."""
    for name in hookspecs.__all__:
        if not name.startswith("postbox_"):
            continue
        function = getattr(hookspecs, name)
        assert function.__doc__.startswith("Called "), name
        for argument in function.__code__.co_varnames[: function.__code__.co_argcount]:
            assert f":param {argument}:" in function.__doc__, (name, argument)
    assert {"hookimpl", "hookspecs"} <= set(postbox_plugin.__all__)


def test_nothing_is_logged_when_nothing_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A well-behaved plugin leaves no trace in the log."""
    caplog.set_level(logging.DEBUG, "postbox.plugins")
    host(Append("1")).before_send(Mail(html="0"))
    assert caplog.records == []
