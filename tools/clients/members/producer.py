"""An idempotent producer: confluent-kafka, over librdkafka.

A producer is `PROGRAM BOOTSTRAP TOPIC OPTIONS`; OPTIONS is an object in JSON: partitions, rate (records a second),
count (then it ends; without, SIGTERM ends it), prefix (of the values, which are numbered). Records go to the partitions
in turn. Events as in events.py: acked (value, partition, offset), refused (value, text), error, ended.
"""

import json
import signal
import sys
import time

from confluent_kafka import Producer
from events import say

bootstrap, topic = sys.argv[1:3]
options = json.loads(sys.argv[3])
ending = []
signal.signal(signal.SIGTERM, lambda *_signal: ending.append(True))


def delivered(error, message) -> None:
    value = message.value().decode()
    if error:
        say("refused", value=value, text=str(error))
    else:
        say("acked", value=value, partition=message.partition(), offset=message.offset())


settings = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "acks": "all"}
producer = Producer({**settings, "message.timeout.ms": 120_000, "error_cb": lambda error: say("error", text=str(error))})
number, started, rate = 0, time.monotonic(), options.get("rate", 60)
while not ending and number < options.get("count", sys.maxsize):
    value = f"{options.get('prefix', '')}{number}"
    producer.produce(topic, value, partition=number % options.get("partitions", 6), on_delivery=delivered)
    number += 1
    producer.poll(max(0.0, started + number / rate - time.monotonic()))
producer.flush()
say("ended")
