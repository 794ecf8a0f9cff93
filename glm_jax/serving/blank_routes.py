"""POST /v1/blanks: texts in which a model that fills blanks fills them.

{"text": "the [MASK] is"}  ->  {"results": [{"fillings": [{"text": "the light is", ..}]}], ..}
"""

import asyncio
import functools
import time
import uuid

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from glm_jax.serving import blank_protocol as protocol
from glm_jax.serving.asking import ClosingError, Ended
from glm_jax.serving.blank_search import Search
from glm_jax.serving.blanks import Plan, Progress, plan, text_tokens
from glm_jax.serving.connected import answered
from glm_jax.serving.errors import ApiError, failed
from glm_jax.serving.preparing import Preparer, client_of
from glm_jax.serving.rows import Rows
from glm_jax.serving.served import Served


def router(served: Served) -> APIRouter:
    """The route /v1/blanks of a model."""
    routes, preparer = APIRouter(tags=["blanks"]), Preparer(served)

    @routes.post(
        "/v1/blanks", response_model=protocol.BlanksResponse, summary="Fill the blanks of texts"
    )
    async def blanks(body: protocol.BlanksRequest, request: Request) -> Response:
        """Fills each blank in turn; or, with `candidates`, searches for the most probable ways.

        In a plain text, [MASK] (some words), [sMASK] (a sentence) and [gMASK] (the rest) are
        blanks. A text that has these letters and means them is written as a list of parts:
        `[{"text": "the letters [MASK] and "}, {"blank": "MASK"}]`.

        Probabilities are the model's own, at temperature 1 with nothing excluded, whatever is
        sampled. `order` says which blank is filled first: the model has learnt all orders, and
        each answer sees those before it.
        """
        preparer.check_model(body.model)
        asked = await preparer.aside(lambda: plan(served, body, client_of(request)))
        return await answered(request, _answer(served, body, asked, request))

    return routes


async def _answer(
    served: Served, body: protocol.BlanksRequest, asked: Plan, request: Request
) -> Response:
    if body.candidates is None:
        results, count = await _filled(served, body, asked)
    else:
        results, count = await _searched(served, body.candidates, asked, client_of(request))
    prompt = sum(map(len, asked.ids))
    request.state.tokens = (prompt, count)  # for the line of the log
    response = protocol.BlanksResponse(
        id=f"blanks-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=served.name,
        results=results,
        usage=protocol.Usage(
            prompt_tokens=prompt, completion_tokens=count, total_tokens=prompt + count
        ),
    )
    return JSONResponse(response.model_dump(exclude_none=True))


async def _filled(
    served: Served, body: protocol.BlanksRequest, asked: Plan
) -> tuple[list[protocol.Result], int]:
    """The fillings of each text, and the number of ids that were chosen for them."""
    found = [Progress(row) for row in asked.rows]
    async with Rows(served.decoder, [row.ask for row in asked.rows]) as rows:
        async for events in rows.events():
            for index, event in events:
                found[index].add(event)
                if isinstance(event, Ended) and event.reason == "failed":
                    raise failed()
                if isinstance(event, Ended) and event.reason == "cancelled":
                    raise ClosingError
    return [
        protocol.Result(
            index=index,
            fillings=[
                one.filling(served, text, body.logprobs is not None)
                for one in found
                if one.row.text == index
            ],
            tokens=None if body.logprobs is None else text_tokens(served, asked.ids[index]),
        )
        for index, text in enumerate(asked.texts)
    ], sum(one.tokens for one in found)


async def _searched(
    served: Served, candidates: int, asked: Plan, client: str
) -> tuple[list[protocol.Result], int]:
    """The candidates of each text, and the number of their ids."""
    results, count = [], 0
    until = time.monotonic() + served.limits.seconds
    for index, text in enumerate(asked.texts):
        search = Search(served, text, asked.ids[index], asked.limits[index])
        future = served.decoder.call(functools.partial(search.run, search.room), client)
        try:
            found = await asyncio.wait_for(asyncio.wrap_future(future), until - time.monotonic())
        except TimeoutError:
            raise ApiError(
                503, f"no candidates within {served.limits.seconds:g} s", retry_after=5.0
            ) from None
        finally:
            future.cancel()
        best = search.candidates(found)[:candidates]
        count += sum(tokens for _, tokens in best)
        results.append(protocol.Result(index=index, candidates=[one for one, _ in best]))
    return results, count
