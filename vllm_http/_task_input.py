"""What the engine makes of the prompt or the chat, and how it treats the request."""

# ruff: noqa: RUF009 - what is called makes a field of its own for each

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._limits import (
    INT64,
    cache_salt,
    each,
    either,
    flag,
    mapping,
    mapping_with,
    one_of,
    sent,
    text,
    whole,
)


_TOOL_CHOICE = either(
    (str, one_of("none", "auto", "required")), (dict, mapping_with("type", "function"))
)


@dataclass(kw_only=True)
class InputFields:
    """vLLM's parameters of the input, of tools and of scheduling. None means: not sent.

    Attributes:
        suffix: Prompts only: what follows the answer, for models that fill in the middle.
        prompt_embeds: Prompts only, instead of `prompt`: base64 of a tensor, or a list of them;
            the server needs ``--enable-prompt-embeds``.
        add_special_tokens: Whether the tokenizer adds its own; vLLM's default is True for prompts
            and False for chat.
        truncate_prompt_tokens: Keep so many tokens of the prompt; -1 as many as fit.
        truncation_side: Where to cut, ``"left"`` or ``"right"``.
        tools: Chat only: the functions that the model may call.
        tool_choice: Chat only: ``"none"``, ``"auto"``, ``"required"``, or
            ``{"type": "function", "function": {"name": ...}}``. The server needs a parser
            (``--tool-call-parser``, and ``--enable-auto-tool-choice`` for ``"auto"``). A function
            that is not ``"strict": True`` may be given arguments that are no JSON object.
        parallel_tool_calls: Chat only: False keeps the first call only.
        reasoning_effort: Chat only: as the model's template knows it, such as ``"low"``.
        add_generation_prompt: Chat only: False leaves out the opening of the answer.
        continue_final_message: Chat only: go on with the last message instead of answering it;
            with ``add_generation_prompt=False``.
        documents: Chat only: for the template, each a dict.
        chat_template: Chat only: a Jinja template instead of the model's own; the server needs
            ``--trust-request-chat-template``.
        chat_template_kwargs: Chat only: the template's other variables, such as
            ``{"enable_thinking": False}``.
        media_io_kwargs: Chat only: how media are loaded; ``--trust-request-mm-kwargs``.
        mm_processor_kwargs: Chat only: how they are processed; ``--trust-request-mm-kwargs``.
        priority: vLLM's scheduling priority, lower is earlier; it is obeyed with
            ``--scheduling-policy priority`` and ignored otherwise.
        cache_salt: Requests share cached prefixes with those of the same salt only. At most 128
            characters, none of ``@ / \\`` and NUL.
        kv_transfer_params: Of disaggregated serving; the answer's are in `AnswerInfo`.
        ec_transfer_params: The same of encoder caches.
        vllm_xargs: For the server's own extensions: text, numbers and lists of them.
        routed_experts_prompt_start: From which token of the prompt on routed experts are told.
        user: Taken by vLLM for OpenAI's sake, and ignored.
    """

    suffix: str | None = sent(text, only="completions")
    prompt_embeds: str | list[str] | None = sent(
        either((str, text), (list, each(text))), only="completions"
    )
    add_special_tokens: bool | None = sent(flag)
    truncate_prompt_tokens: int | None = sent(whole(-1))
    truncation_side: str | None = sent(one_of("left", "right"))
    tools: list[dict[str, Any]] | None = sent(each(mapping_with("type", "function")), only="chat")
    tool_choice: str | dict[str, Any] | None = sent(_TOOL_CHOICE, only="chat")
    parallel_tool_calls: bool | None = sent(flag, only="chat")
    reasoning_effort: str | None = sent(text, only="chat")
    add_generation_prompt: bool | None = sent(flag, only="chat")
    continue_final_message: bool | None = sent(flag, only="chat")
    documents: list[dict[str, Any]] | None = sent(each(mapping, least=0), only="chat")
    chat_template: str | None = sent(text, only="chat")
    chat_template_kwargs: dict[str, Any] | None = sent(mapping, only="chat")
    media_io_kwargs: dict[str, Any] | None = sent(mapping, only="chat")
    mm_processor_kwargs: dict[str, Any] | None = sent(mapping, only="chat")
    priority: int | None = sent(whole(-INT64, INT64 - 1))
    cache_salt: str | None = sent(cache_salt)
    kv_transfer_params: dict[str, Any] | None = sent(mapping)
    ec_transfer_params: dict[str, Any] | None = sent(mapping)
    vllm_xargs: dict[str, Any] | None = sent(mapping)
    routed_experts_prompt_start: int | None = sent(whole(0))
    user: str | None = sent(text)
