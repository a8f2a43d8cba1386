"""A web service on threads: a POST to /events stores a record, a GET of /events/7 reads the one at offset 7.

Run it with: pip install flask && flask --app examples/flask_service.py run
Where a server forks, the module must be loaded after that (gunicorn without --preload): a client is in one process.
"""

import atexit
from contextlib import ExitStack

from flask import Flask, Response, abort, request

from proglog_trio.client.sync import DeliveryError, StartOutOfRange, open_consumer, open_producer

ADDRESS = "127.0.0.1:8400"
app = Flask(__name__)
clients = ExitStack()
atexit.register(clients.close)
producer = clients.enter_context(open_producer(ADDRESS))


@app.post("/events")
def store() -> dict[str, int]:
    try:
        return {"offset": producer.send(request.get_data(), timeout=5).wait().offset}
    except (DeliveryError, TimeoutError) as error:
        abort(503, str(error))
    except ValueError as error:
        abort(400, str(error))


@app.get("/events/<int:offset>")
def read(offset: int) -> Response:
    try:
        with open_consumer(ADDRESS, offset=offset, follow=False) as consumer:
            return Response(next(consumer).value, mimetype="application/octet-stream")
    except (StopIteration, StartOutOfRange):
        abort(404, f"there is no record at offset {offset}")
