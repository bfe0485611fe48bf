"""Requests with something wrong in each of vLLM's parameters, one at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

from .same_requests import CHAT, COMPLETIONS, NAMED, NOBODY, TOOLS, Fields
from .server import CONTEXT, MODEL


NOWHERE = 99_999_999  # in no vocabulary
STEADY: Fields = {"model": MODEL, "max_tokens": 5, "temperature": 0}
QUESTION: dict[str, Fields] = {
    COMPLETIONS: {"prompt": "The capital of France is"},
    CHAT: {"messages": [{"role": "user", "content": "Where is Paris?"}]},
}
FUNCTION = {"type": "function"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
NO_SCHEMA = {"type": "nonsense"}

Values = list[Any]

# At both endpoints, each value by itself.
ANYWHERE: dict[str, Values] = {
    "model": ["nobody", "", 5],
    "max_tokens": [-1, 0, "many", 1.5, CONTEXT + 1, "3", True],
    "min_tokens": [-1, 10, "few"],
    "temperature": [-0.1, 2.1, "warm", "1", [1]],
    "top_p": [0, 1.1, -1, "most"],
    "top_k": [-2, 1.5, "some"],
    "min_p": [-0.1, 1.1, "some"],
    "seed": [2**63, -(2**63) - 1, 1.5, "luck"],
    "n": [0, -1, 2, 1.5, "two", 20_000],
    "frequency_penalty": [2.1, -2.1, "high"],
    "presence_penalty": [2.1, -2.1, "high"],
    "repetition_penalty": [0, -1, "high"],
    "logit_bias": [{"a": 1}, {str(NOWHERE): 1}, {"1": "x"}, {"-1": 1}, [1], {"1": 200}],
    "stop": ["", [""], ["a", "b", "c", "d", "e"], 5, [5]],
    "stop_token_ids": [[-1], [NOWHERE], ["a"], 5],
    "ignore_eos": ["perhaps", 2, "true", 1],
    "bad_words": [[""], [5], "word", ["\n"]],
    "allowed_token_ids": [[], [-1], [NOWHERE], ["a"]],
    "use_beam_search": ["perhaps"],
    "length_penalty": ["long"],
    "repetition_detection": [[1], {"max_pattern_size": -1}, {"min_count": "a"}],
    "thinking_token_budget": [-2, 5, "much"],
    "watermarking": ["perhaps"],
    "structured_outputs": [
        *("words", {}, {"regex": "("}, {"json": "{"}, {"json": NO_SCHEMA}, {"grammar": "no :: no"}),
        *({"regex": "a", "choice": ["a"]}, {"choice": []}, {"choice": [1]}, {"regex": ""}),
        *({"json_object": False}, {"structural_tag": "{}"}, {"nothing": 1}, {"regex": 5}),
        *({"structural_tag": "no JSON"}, {"json": ""}, {"grammar": ""}),
    ],
    "response_format": [
        *({"type": "nonsense"}, {"type": "json_schema"}, {}, "json_object"),
        {"type": "json_schema", "json_schema": {"name": "x", "schema": NO_SCHEMA}},
        {"type": "structural_tag"},
    ],
    "prompt_logprobs": [-2, 21, "some"],
    "logprob_token_ids": [[5], [], [NOWHERE], ["a"]],
    "return_token_ids": ["perhaps"],
    "return_tokens_as_token_ids": ["perhaps"],
    "echo": ["perhaps"],
    "skip_special_tokens": ["perhaps"],
    "spaces_between_special_tokens": ["perhaps"],
    "include_stop_str_in_output": ["perhaps"],
    "stream_interval": [0, -1, "long", 1.5],
    "add_special_tokens": ["perhaps"],
    "truncate_prompt_tokens": [-2, CONTEXT + 1, "short"],
    "truncation_side": ["middle", 5],
    "priority": [2**63, "high"],
    "cache_salt": ["", "a/b", "a@b", "a\\b", "a\0b", "x" * 129, 5],
    "kv_transfer_params": ["some", [1]],
    "ec_transfer_params": ["some"],
    "vllm_xargs": ["some", {"a": {"b": 1}}, {"a": 2**64}],
    "routed_experts_prompt_start": [-1, "first"],
    "user": [5, ""],
}
OF_PROMPTS: dict[str, Values] = {
    "prompt": [
        *("", [], [[]], [""], [-1], [NOWHERE], [5] * CONTEXT, "word " * CONTEXT, [1, "a"]),
        *(["a", [1]], [[1], "a"], [[1], [-1]], [["a"]], {"a": 1}, 5, [1.5], [True], [None]),
    ],
    "logprobs": [-2, 21, "some", True, 1.5, -1],
    "suffix": ["at the end", 5, ""],
    "prompt_embeds": ["AAAA", 5],
}
OF_CHATS: dict[str, Values] = {
    "messages": [
        *([], ["Hi"], [{"content": "Hi"}], [{"role": 5, "content": "Hi"}], "Hi", {"role": "user"}),
        *([{"role": "user", "content": [{"type": "smell"}]}],),
        *([{"role": "user", "content": [IMAGE]}], [{"role": "user", "content": 5}]),
        [{"role": "user", "content": "word " * CONTEXT}],
    ],
    "max_completion_tokens": [0, -1, "many", CONTEXT + 1],
    "logprobs": ["perhaps", 2, 1],
    "top_logprobs": [-2, 2, "some"],
    "tools": [[], ["x"], [FUNCTION], [{**FUNCTION, "function": {}}], "x", [{"function": {}}]],
    "tool_choice": ["some", "auto", "required", NAMED["tool_choice"], 5],
    "parallel_tool_calls": ["perhaps"],
    "reasoning_effort": ["extreme", 5],
    "add_generation_prompt": ["perhaps"],
    "continue_final_message": ["perhaps"],
    "documents": ["x", ["x"]],
    "chat_template": ["{{ messages }}", 5],
    "chat_template_kwargs": ["x"],
    "media_io_kwargs": ["x", {"image": {"mode": "RGB"}}],
    "mm_processor_kwargs": ["x", {"size": 5}],
    "include_reasoning": ["perhaps"],
    "return_prompt_text": ["perhaps"],
}

# Several fields that do not go together, at both endpoints and at one.
TOGETHER: dict[str, dict[str, Fields]] = {
    COMPLETIONS: {
        "logprobs beyond, with luck": {"logprobs": 21, "temperature": 1},
        "beam of one too many": {"use_beam_search": True, "n": 20_000},
        "beam and echo": {"use_beam_search": True, "echo": True},
        "beam and logprobs": {"use_beam_search": True, "logprobs": 1},
        "nothing to say": {"echo": False, "max_tokens": 0},
        "two formats": {
            "structured_outputs": {"choice": ["a"]},
            "response_format": {"type": "json_object"},
        },
        "one bad prompt of two": {"prompt": [[5], [NOWHERE]]},
        "1,025 prompts": {"prompt": ["a"] * 1025},
    },
    CHAT: {
        "top_logprobs 21": {"logprobs": True, "top_logprobs": 21},
        "opened and gone on": {"add_generation_prompt": True, "continue_final_message": True},
        "opened by default, gone on": {"continue_final_message": True},
        "unknown tool": {"tools": TOOLS, "tool_choice": NOBODY},
        "no name": {"tools": TOOLS, "tool_choice": FUNCTION},
        "some tool, and a regex": {
            "tools": TOOLS,
            "tool_choice": "required",
            "structured_outputs": {"regex": "[0-9]"},
        },
        "logprob_token_ids without": {"logprobs": False, "logprob_token_ids": [5]},
    },
}
REMOVED = ["guided_json", "guided_regex", "guided_choice", "guided_grammar", "best_of"]
REMOVED += ["guided_whitespace_pattern", "guided_decoding_backend"]


class Wrong(NamedTuple):
    """A request with something wrong in it; `field` is where."""

    name: str
    path: str
    field: str
    fields: Fields

    @property
    def body(self) -> Fields:
        """What goes to vLLM as it is."""
        fields = {name: value for name, value in self.fields.items() if name != "extra_body"}
        return {**fields, **self.fields.get("extra_body", {})}


def refusal_space() -> list[Wrong]:
    """All of them."""
    found = []
    for path, own, others in ((COMPLETIONS, OF_PROMPTS, OF_CHATS), (CHAT, OF_CHATS, OF_PROMPTS)):
        base = {**STEADY, **QUESTION[path]}
        kind = path.split("/")[2]
        for field, values in {**ANYWHERE, **own}.items():
            found += [
                Wrong(f"{kind}: {field} {repr(value)[:60]}", path, field, {**base, field: value})
                for value in values
            ]
        for field in sorted(others.keys() - {"prompt", "messages", "prompt_embeds", "logprobs"}):
            good = ELSEWHERE.get(field, others[field][0])
            name = f"{kind}: {field} is not for here"
            found.append(Wrong(name, path, field, {**base, field: good}))
        for name, fields in TOGETHER[path].items():
            found.append(Wrong(f"{kind}: {name}", path, list(fields)[-1], {**base, **fields}))
        for field in REMOVED:
            extra = {"extra_body": {field: "[0-9]"}}
            found.append(Wrong(f"{kind}: {field} is gone", path, field, {**base, **extra}))
    return found


# Good values of fields that are for the other endpoint only.
ELSEWHERE: Fields = {
    "add_generation_prompt": False,
    "chat_template_kwargs": {"enable_thinking": False},
    "continue_final_message": False,
    "documents": [{"text": "Rome"}],
    "include_reasoning": False,
    "max_completion_tokens": 2,
    "parallel_tool_calls": False,
    "reasoning_effort": "low",
    "return_prompt_text": True,
    "tool_choice": "none",
    "tools": TOOLS,
    "top_logprobs": 2,
    "media_io_kwargs": {"image": {"mode": "RGB"}},
    "mm_processor_kwargs": {"size": 5},
}
