"""A web service on asyncio: a POST to /events stores a record, a GET of /events/7 reads the one at offset 7.

Run it with: pip install fastapi uvicorn uvloop && uvicorn --loop uvloop --app-dir examples fastapi_service:app
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, HTTPException, Request, Response

from proglog_trio.client import DeliveryError, StartOutOfRange, open_consumer, open_producer

ADDRESS = "127.0.0.1:8400"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with open_producer(ADDRESS) as app.state.producer:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/events")
async def store(request: Request) -> dict[str, int]:
    try:
        delivery = await request.app.state.producer.send(await request.body())
        return {"offset": (await delivery.wait()).offset}
    except (DeliveryError, ValueError) as error:
        raise HTTPException(503 if isinstance(error, DeliveryError) else 400, str(error)) from error


@app.get("/events/{offset}")
async def read(offset: int) -> Response:
    with suppress(StopAsyncIteration, StartOutOfRange):
        async with open_consumer(ADDRESS, offset=offset, follow=False) as consumer:
            return Response((await anext(consumer)).value, media_type="application/octet-stream")
    raise HTTPException(404, f"there is no record at offset {offset}")
