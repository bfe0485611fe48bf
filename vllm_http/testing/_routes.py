"""vLLM's routes: who may use which, and what the small ones answer."""

from __future__ import annotations

import time
from typing import Any

from . import _pooling, _words
from ._answer import Answer
from ._forms import Chat, Completion
from ._generation import Generation, Model
from ._refusals import Refusal, check, check_model, monsters_refused, read_body
from ._request import ReceivedRequest
from ._sampling_checks import check_sampling, late_refusal


_FORMS: dict[str, type[Generation]] = {"/v1/completions": Completion, "/v1/chat/completions": Chat}

# The first method of a path is the one that vLLM names in the `allow` header.
_METHODS: dict[str, tuple[str, ...]] = {
    "/health": ("GET",),
    "/ping": ("GET", "POST"),
    "/version": ("GET",),
    "/load": ("GET",),
    "/metrics": ("GET",),
    "/v1/models": ("GET",),
    "/tokenize": ("POST",),
    **{path: ("POST",) for path in (*_FORMS, *_pooling.ROUTES)},
}


def generates(request: ReceivedRequest) -> bool:
    """Whether this request is for text."""
    return request.method == "POST" and request.route in _FORMS


def turned_away(request: ReceivedRequest, answer: Answer, api_key: str | None) -> bool:
    """Answer a request that reaches no route; whether it was one."""
    path = request.route
    if path.startswith("/v1") and api_key is not None and not _has_key(request, api_key):
        answer.whole(401, {"error": "Unauthorized"}, vary=False)
    elif path not in _METHODS and path.rstrip("/") in _METHODS:
        place = f"http://{request.header('host')}{path.rstrip('/')}"
        answer.whole(307, None, {"content-length": "0", "location": place})
    elif path not in _METHODS:
        answer.whole(404, {"detail": "Not Found"})
    elif request.method not in _METHODS[path]:
        answer.whole(405, {"detail": "Method Not Allowed"}, {"allow": _METHODS[path][0]})
    else:
        return False
    return True


@monsters_refused()
def make_generation(
    request: ReceivedRequest, model: Model, random_id: str
) -> tuple[Generation, Refusal | None]:
    """The generation that a request asks for, and what vLLM would refuse once the stream is begun.

    Raises:
        Refusal: vLLM would not start it.
    """
    body = read_body(request)
    form = _FORMS[request.route]
    chat = form is Chat
    check(body, chat=chat, model=model.name, max_model_len=model.max_model_len)
    check_sampling(body, chat=chat)
    late = late_refusal(body, chat=chat)
    generation = form(body, model, _request_id(request, body, random_id))
    generation.check_length()
    if late is not None and not generation.stream:
        raise late
    return generation, late


def make_scripted_generation(request: ReceivedRequest, model: Model, random_id: str) -> Generation:
    """The generation for a script, for which a bad request is as good as an empty one."""
    form = _FORMS[request.route]
    try:
        with monsters_refused():
            body = read_body(request)
            return form(body, model, _request_id(request, body, random_id))
    except Refusal:
        return form({}, model, _request_id(request, {}, random_id))


@monsters_refused()
def small_answer(request: ReceivedRequest, model: Model) -> dict[str, Any] | None:
    """The JSON of the routes that neither generate nor measure; None where the body is empty.

    Raises:
        Refusal: the request makes no sense.
    """
    if request.route == "/version":
        return {"version": model.version}
    if request.route == "/load":
        # As vLLM without --enable-server-load-tracking, however busy it is.
        return {"server_load": 0}
    if request.route == "/v1/models":
        return {"object": "list", "data": [_card(model)]}
    if request.route == "/tokenize":
        return _tokenized(read_body(request), model)
    if request.route in _pooling.ROUTES:
        return _pooling.answer(request.route, read_body(request), model)
    return None


def _has_key(request: ReceivedRequest, api_key: str) -> bool:
    scheme, _, key = (request.header("authorization") or "").partition(" ")
    return scheme.lower() == "bearer" and key == api_key


def _request_id(request: ReceivedRequest, body: dict[str, Any], random_id: str) -> str:
    return request.header("x-request-id") or body.get("request_id") or random_id


def _tokenized(body: dict[str, Any], model: Model) -> dict[str, Any]:
    check_model(body, model.name)
    form = Chat if "messages" in body else Completion
    (prompt, *_) = form(body, model, "").prompts
    words = prompt.words if body.get("return_token_strs") else None
    return {
        "count": len(prompt.ids),
        "max_model_len": model.max_model_len,
        "tokens": prompt.ids,
        "token_strs": None if words is None else [word.text for word in words],
    }


def _card(model: Model) -> dict[str, Any]:
    now = int(time.time())
    permission = {
        "id": f"modelperm-{_words.hex_digits(model.name)}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": model.name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": model.name,
        "parent": None,
        "max_model_len": model.max_model_len,
        "permission": [permission],
    }
