"""What the clicks come to: counted by link, tag and hour, and shown on the mail that they were made in::

    clicks = Aggregation()
    for line in open("clicks.jsonl", "rb"):
        clicks.add(line)
    print(clicks.result().clicks)
    page = click_map(message, clicks)
"""

from postbox_plugin.stats.aggregate import Aggregation, Count, HourCount, LinkCount, Statistics, TagCount
from postbox_plugin.stats.page import click_map

__all__ = ["Aggregation", "Count", "HourCount", "LinkCount", "Statistics", "TagCount", "click_map"]
