"""A peer that speaks the wire's protocol without the job's key: it says HELLO, then asks for work at once."""

import json
import os
import secrets
import sys

import zmq

from backupsync.wire import messages as wire
from backupsync.wire.frames import encode

launch = json.loads(os.environ["STRANGER"])
context = zmq.Context()
socket = context.socket(zmq.DEALER)
socket.linger = 0
socket.connect(launch["endpoint"])
hello = wire.Hello(
    job=launch["uid"],
    rank=launch["rank"],
    attempt=launch["attempt"],
    start=0,
    incarnation=secrets.token_bytes(32),
    protocol=wire.PROTOCOL,
    schema_hash=bytes(32),
    nonce=secrets.token_bytes(32),
)
for message in (hello, wire.Ready(-1)):
    socket.send_multipart([bytes(frame) for frame in encode(message, None)])
while socket.poll(60_000):
    said = b"".join(socket.recv_multipart())
    if b"refused" in said:
        sys.exit("refused")
sys.exit("never refused")
