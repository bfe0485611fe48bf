"""A few hundred requests from vLLM's parameters, the same ones every time.

Each parameter comes alone at least once; the rest are drawn with a fixed seed, one from each
group. All are answered the same twice: greedy, or with a seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from .same_requests import CHAT, COMPLETIONS, TOOLS, Fields
from .server import MODEL


SEED = 20
DRAWN = 75  # requests for each of the two endpoints, beside those of one parameter

ASKED = "What is the weather in Paris?"
STORY = "Once upon a time there was a little house by the sea, and in it"
PERIOD, COMMA, NEWLINE = 30, 28, 198  # tokens of the model
LETTERS = list(range(70, 90))
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}

Group = dict[str, Fields]


def said(text: Any, **more: Any) -> Fields:
    """A chat of one question."""
    return {"messages": [{"role": "user", "content": text}], **more}


PROMPTS: Group = {
    "text": {"prompt": "The capital of France is"},
    "emoji": {"prompt": "😀😃😄😁"},
    "chinese": {"prompt": "今天天气很好 我们去"},
    "token ids": {"prompt": [504, 3575, 282, 4649, 314]},
    "two texts": {"prompt": ["Hello there", "The sea is"]},
    "three token prompts": {"prompt": [[504, 3575, 282], [504, 3426], [1250]]},
    "cut on the left": {
        "prompt": STORY,
        "truncate_prompt_tokens": 6,
        "truncation_side": "left",
    },
    "cut on the right": {
        "prompt": STORY,
        "truncate_prompt_tokens": 6,
        "truncation_side": "right",
    },
    "cut to fit": {"prompt": STORY, "truncate_prompt_tokens": -1},
    "no special tokens": {"prompt": STORY, "add_special_tokens": False},
    "salted": {"prompt": STORY, "cache_salt": "pepper"},
    "urgent": {"prompt": STORY, "priority": -1, "user": "somebody"},
}
CHATS: Group = {
    "question": said("Where is Paris?"),
    "parts": said([{"type": "text", "text": "Name two "}, {"type": "text", "text": "colours"}]),
    "system": {
        "messages": [
            {"role": "system", "content": "Answer in one word."},
            {"role": "user", "content": "Say hello in Japanese 🙂"},
        ]
    },
    "second turn": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello! How can I help?"},
            {"role": "user", "content": "Count to five."},
        ]
    },
    "go on": {
        "messages": [
            {"role": "user", "content": "Tell a story."},
            {"role": "assistant", "content": "Once upon a time"},
        ],
        "add_generation_prompt": False,
        "continue_final_message": True,
    },
    "not opened": said("Where is Rome?", add_generation_prompt=False),
    "for the template": said("Hi", chat_template_kwargs={"enable_thinking": False}),
    "effort": said("Hi", reasoning_effort="low"),
    "documents": said("Hi", documents=[{"title": "Rome", "text": "It is in Italy."}]),
    "special tokens": said("Hi", add_special_tokens=True, include_reasoning=False),
    "newer name": said("Where is Paris?", max_completion_tokens=7),
    "no tool": said(ASKED, tools=TOOLS, tool_choice="none", parallel_tool_calls=False),
    "last tokens": said(STORY, truncate_prompt_tokens=20),
}
CHOSEN: Group = {
    "greedy": {"temperature": 0},
    "seed": {"temperature": 1.0, "seed": 7},
    "negative seed": {"temperature": 1.3, "seed": -(2**63)},
    "top_p": {"temperature": 0.9, "top_p": 0.8, "seed": 1},
    "top_k": {"temperature": 1.0, "top_k": 5, "seed": 0},
    "min_p": {"temperature": 1.0, "min_p": 0.2, "seed": 2},
    "penalties": {"temperature": 0, "frequency_penalty": 1.5, "presence_penalty": -0.5},
    "repetition penalty": {"temperature": 0, "repetition_penalty": 1.3},
    "n 3": {"n": 3, "temperature": 1.0, "seed": 11},
    "n 2, top_k": {"n": 2, "temperature": 0.8, "top_k": 20, "seed": 3},
    "bias": {"temperature": 0, "logit_bias": {str(COMMA): 100, "260": -50.5}},
    "few tokens": {"temperature": 0, "allowed_token_ids": LETTERS},
    "bad words": {"temperature": 0, "bad_words": ["Paris", "the"]},
}
ENDED: Group = {
    "length": {"max_tokens": 8},
    "one token": {"max_tokens": 1},
    "stop": {"stop": "e", "max_tokens": 16},
    "stops, one far off": {"stop": ["nowhere to be found", "a", ". "], "max_tokens": 12},
    "stop kept": {"stop": ["s", "on"], "include_stop_str_in_output": True, "max_tokens": 12},
    "stop tokens": {"stop_token_ids": [PERIOD, COMMA, NEWLINE], "max_tokens": 20},
    "not before 6": {"stop": ["e"], "min_tokens": 6, "max_tokens": 12},
    "no eos": {"ignore_eos": True, "max_tokens": 10},
    "repetition": {
        "repetition_detection": {"max_pattern_size": 3, "min_pattern_size": 1, "min_count": 2},
        "max_tokens": 16,
    },
    "in steps": {"stream_interval": 3, "max_tokens": 10},
}
TOLD: Group = {
    "text only": {},
    "ids": {"return_token_ids": True},
    "prompt's likeliest": {"prompt_logprobs": 1},
    "prompt's own": {"prompt_logprobs": 0, "return_token_ids": True},
    "special tokens": {"skip_special_tokens": False, "spaces_between_special_tokens": False},
    "echo": {"echo": True},
}
TOLD_OF_PROMPTS: Group = {
    **TOLD,
    "likely": {"logprobs": 2},
    "own, ids": {"logprobs": 0, "return_token_ids": True},
    "ids for tokens": {"logprobs": 1, "return_tokens_as_token_ids": True},
    "one token's": {"logprobs": 1, "logprob_token_ids": [260, 284]},
    "echo, likely": {"echo": True, "logprobs": 1},
}
TOLD_OF_CHATS: Group = {
    **TOLD,
    "likely": {"logprobs": True, "top_logprobs": 2},
    "own, ids": {"logprobs": True, "return_token_ids": True},
    "ids for tokens": {"logprobs": True, "top_logprobs": 1, "return_tokens_as_token_ids": True},
    "one token's": {"logprobs": True, "logprob_token_ids": [260, 284]},
    "prompt": {"return_prompt_text": True},
}
MATCHED: Group = {
    "anything": {},
    "regex": {"structured_outputs": {"regex": "[0-9]{3}-[a-z]{2}"}},
    "choice": {"structured_outputs": {"choice": ["yes", "no", "多分 🙂"]}},
    "schema": {"structured_outputs": {"json": CITY}},
    "grammar": {"structured_outputs": {"grammar": 'root ::= "a" | "a" root'}},
    "any object": {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
    "OpenAI's schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": CITY}}
    },
    "OpenAI's object": {"response_format": {"type": "json_object"}},
}
ALONE: dict[str, Group] = {
    COMPLETIONS: {
        "beam": {"use_beam_search": True, "n": 2, "temperature": 0},
        "beam, short": {"use_beam_search": True, "n": 3, "length_penalty": 0.5},
        "echo alone": {"echo": True, "max_tokens": 0},
        "default length": {"max_tokens": None},
    },
    CHAT: {
        "beam": {"use_beam_search": True, "n": 2, "temperature": 0},
        "some tool": said(ASKED, tools=TOOLS, tool_choice="required", max_tokens=60),
        "this tool": said(
            ASKED,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": "get_time"}},
            max_tokens=60,
        ),
    },
}


class Request(NamedTuple):
    """One of them; its fields are those of vLLM and of a `TaskRequest` alike."""

    name: str
    path: str
    fields: Fields


def request_space() -> list[Request]:
    """All of them, each once."""
    found: list[Request] = []
    for path, inputs, told in (
        (COMPLETIONS, PROMPTS, TOLD_OF_PROMPTS),
        (CHAT, CHATS, TOLD_OF_CHATS),
    ):
        groups = [inputs, CHOSEN, ENDED, told, MATCHED]
        found += [_request(path, parts) for parts in _one_at_a_time(groups)]
        found += [_request(path, parts) for parts in _drawn(groups)]
        first = [next(iter(group.items())) for group in (inputs, CHOSEN, ENDED)]
        found += [_request(path, [*first, (name, ALONE[path][name])]) for name in ALONE[path]]
    return list({(one.path, one.name): one for one in found}.values())


Part = tuple[str, Fields]


def _one_at_a_time(groups: list[Group]) -> Iterator[list[Part]]:
    """The first of each group, but for one."""
    for number, group in enumerate(groups):
        for part in group.items():
            parts = [next(iter(other.items())) for other in groups]
            parts[number] = part
            yield parts


def _drawn(groups: list[Group]) -> Iterator[list[Part]]:
    """One of each group; what an answer has to match is asked for in every third only."""
    luck = random.Random(SEED)
    number = 0
    while number < DRAWN:
        parts = [luck.choice(list(group.items())) for group in groups]
        if number % 3:
            parts[-1] = ("anything", {})
        if not _is_too_much(parts):
            yield parts
            number += 1


def _is_too_much(parts: list[Part]) -> bool:
    """Whether vLLM 0.32 fails at it, with a 500."""
    names = {name for name, _ in parts}
    # The tokens that are allowed may hold nothing that matches.
    if "few tokens" in names and parts[-1][1]:
        return True
    # A choice that begins one step after another looks its tokens up in the wrong logprobs.
    return "echo, likely" in names and any("n" in part for _, part in parts)


def _request(path: str, parts: list[Part]) -> Request:
    fields: Fields = {"model": MODEL}
    for _, part in parts:
        fields |= part
    fields = {name: value for name, value in fields.items() if value is not None}
    name = ", ".join([path.split("/")[2], *(name for name, _ in parts)])
    return Request(name, path, fields)
