"""A Kafka of three brokers: librdkafka's own mock cluster, in a process of its own that obeys its standard input.

The library comes with confluent-kafka; it is called directly, for the Python client can make such a cluster but not
cut its brokers off. Writes the brokers' addresses, then obeys one command a line and writes ``done`` after each::

    down                    cut all connections, and take no new ones; the messages stay
    up                      take connections again
    fail API ERROR          answer the next request of this kind with this error
    forbid TOPIC ERROR      answer all requests for this topic with this error

The numbers of requests and errors are the protocol's (https://kafka.apache.org/protocol).
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import confluent_kafka

BROKERS = 3
PARTITIONS = 4
PRODUCER = 0  # rd_kafka_type_t

(path,) = Path(confluent_kafka.__file__).parents[1].glob("confluent_kafka.libs/librdkafka-*")
library = ctypes.CDLL(str(path))
for name in ("rd_kafka_new", "rd_kafka_mock_cluster_new"):
    getattr(library, name).restype = ctypes.c_void_p
library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p

error = ctypes.create_string_buffer(512)
client = library.rd_kafka_new(PRODUCER, None, error, ctypes.c_size_t(len(error)))
assert client, error.value
cluster = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), BROKERS))
assert cluster
assert library.rd_kafka_mock_topic_create(cluster, b"clicks", PARTITIONS, BROKERS) == 0
print(library.rd_kafka_mock_cluster_bootstraps(cluster).decode(), flush=True)

for line in sys.stdin:
    command, *words = line.split()
    if command == "fail":
        api, code = map(int, words)
        library.rd_kafka_mock_push_request_errors(cluster, ctypes.c_int16(api), ctypes.c_size_t(1), ctypes.c_int(code))
    elif command == "forbid":
        library.rd_kafka_mock_topic_set_error(cluster, words[0].encode(), ctypes.c_int(int(words[1])))
    else:
        for broker in range(1, BROKERS + 1):
            failed = getattr(library, f"rd_kafka_mock_broker_set_{command}")(cluster, ctypes.c_int32(broker))
            assert not failed
    print("done", flush=True)
