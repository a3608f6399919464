"""What the clicks come to: counted by link, tag and hour, and shown on the mail that they were made in::

    clicks = Aggregation()
    for line in open("clicks.jsonl", "rb"):
        clicks.add(line)
    print(clicks.result().clicks)
    Path("map.html").write_text(click_map(message, clicks), encoding="utf-8")

``postbox stats`` and ``postbox map`` are these on the command line.
"""

from postbox_plugin.stats.aggregate import Aggregation, Count, HourCount, LinkCount, Statistics, TagCount
from postbox_plugin.stats.page import click_map

__all__ = ["Aggregation", "Count", "HourCount", "LinkCount", "Statistics", "TagCount", "click_map"]
