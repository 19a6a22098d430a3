"""anthropic-python against a node: messages, its stream's accumulator, tools, thinking, count_tokens, errors."""
import asyncio
import json

import anthropic
from harness import ABANDONED, DONE, FOX, KEY, MODEL, NODE, TINY, WEATHER, check, main, raises
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=NODE, api_key=KEY, max_retries=0, timeout=100)
TOOL = {"name": WEATHER["name"], "description": WEATHER["description"], "input_schema": WEATHER["parameters"]}


class Answer(BaseModel):
    answer: int
    ok: bool


def user(text):
    return [{"role": "user", "content": text}]


def ask(text, **more):
    return client.messages.create(**{"model": MODEL, "max_tokens": 256, "messages": user(text), **more})


def texts(message):
    return "".join(block.text for block in message.content if block.type == "text")


@check
def models():
    listed = [model.id for model in client.models.list()]
    assert {MODEL, TINY} <= set(listed), listed
    assert client.models.retrieve(MODEL).id == MODEL


@check
def chat():
    message = ask("Say something")
    assert (message.type, message.role, message.model, message.stop_reason) == ("message", "assistant", MODEL, "end_turn"), message
    assert [block.type for block in message.content] == ["text"] and texts(message) == FOX, message
    assert message.id and message.usage.input_tokens and message.usage.output_tokens, message.usage


@check
def chat_real_model():
    message = ask("Hello", model=TINY, max_tokens=8, extra_body={"temperature": 0})
    assert texts(message) and message.usage.output_tokens <= 8, message


@check
def system():
    without = ask("Say something").usage
    for words in ("You are terse and polite.", [{"type": "text", "text": "You are terse and polite.", "cache_control": {"type": "ephemeral"}}]):
        message = ask("Say something", system=words)
        used = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
        assert texts(message) == FOX and used > without.input_tokens + (without.cache_read_input_tokens or 0), message


@check
def blocks():
    told = [
        {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Three."}]},
        {"role": "user", "content": "Go on"},
    ]
    assert texts(ask("", messages=told)) == FOX


@check
def limits():
    cut = ask("#LONG", max_tokens=4)
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 4), cut
    stopped = ask("#STOP", stop_sequences=["<<HALT>>"])
    assert (texts(stopped), stopped.stop_reason, stopped.stop_sequence) == ("alpha beta", "stop_sequence", "<<HALT>>"), stopped


@check
def stream():
    with client.messages.stream(model=MODEL, max_tokens=256, messages=user("#EMOJI")) as events:
        text = "".join(events.text_stream)
        message = events.get_final_message()
    assert text == "Party 🎉 fam 👩‍👩‍👧 ja 日本語 fin" == texts(message), text
    assert message.stop_reason == "end_turn" and message.usage.input_tokens and message.usage.output_tokens > 4, message


@check
def stream_events():
    kinds = [event.type for event in ask("Say something", stream=True) if event.type != "ping"]
    deltas = kinds.count("content_block_delta")
    assert deltas > 2 and kinds == [
        "message_start", "content_block_start", *["content_block_delta"] * deltas, "content_block_stop", "message_delta", "message_stop"], kinds


@check
def thinking():
    budget = {"type": "enabled", "budget_tokens": 1024}
    message = ask("#THINK", max_tokens=2048, thinking=budget)
    assert [block.type for block in message.content] == ["thinking", "text"], message
    assert "ponder first" in message.content[0].thinking and texts(message).strip() == "Pondered answer", message
    with client.messages.stream(model=MODEL, max_tokens=2048, thinking=budget, messages=user("#THINK")) as events:
        thought = "".join(event.thinking for event in events if event.type == "thinking")
        streamed = events.get_final_message()
    assert thought == streamed.content[0].thinking == message.content[0].thinking and texts(streamed) == texts(message)
    # Agents send the blocks back as they came.
    told = [*user("#THINK"), {"role": "assistant", "content": [block.model_dump() for block in message.content]}, *user("Say something")]
    assert ask("", messages=told, max_tokens=2048, thinking=budget).stop_reason == "end_turn"


@check
def tools():
    first = ask("#TOOL", tools=[TOOL])
    [call] = [block for block in first.content if block.type == "tool_use"]
    assert (first.stop_reason, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"}), first
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    told = [*user("#TOOL"), {"role": "assistant", "content": [block.model_dump() for block in first.content]}, {"role": "user", "content": [result]}]
    last = ask("", messages=told, tools=[TOOL])
    assert (texts(last), last.stop_reason) == (DONE, "end_turn"), last


@check
def tools_stream():
    with client.messages.stream(model=MODEL, max_tokens=256, messages=user("#PARALLEL"), tools=[TOOL]) as events:
        pieces = [event.partial_json for event in events if event.type == "input_json"]
        message = events.get_final_message()
    calls = [block for block in message.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Paris"}, {"city": "Tokyo"}] and len({call.id for call in calls}) == 2, message
    assert "".join(pieces).count("city") == 2 and message.stop_reason == "tool_use", pieces


@check
def tool_runner():
    asked = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """The weather of a city."""
        asked.append(city)
        return "sunny"

    runner = client.beta.messages.tool_runner(model=MODEL, max_tokens=256, messages=user("#TOOL"), tools=[get_weather])
    assert texts(runner.until_done()) == DONE and asked == ["Paris"], asked


@check
def tool_choice():
    assert all(block.type == "text" for block in ask("#TOOL", tools=[TOOL], tool_choice={"type": "none"}).content)
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        message = ask("Say something", tools=[TOOL], tool_choice=choice)
        calls = [block for block in message.content if block.type == "tool_use"]
        assert [call.name for call in calls] == ["get_weather"] and set(calls[0].input) == {"city"}, message


@check
def parallel_tool_calls():
    message = ask("#PARALLEL", tools=[TOOL], tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    assert len([block for block in message.content if block.type == "tool_use"]) == 1, message


@check
def parse():
    for text in ("#JSON", "Say something"):
        message = client.messages.parse(
            model=MODEL, max_tokens=200, messages=user(text), output_format=Answer, extra_body={"temperature": 0})
        assert isinstance(message.parsed_output, Answer), message


@check
def count_tokens():
    more = {"system": "Be terse.", "tools": [TOOL], "messages": user("Say something")}
    counted = client.messages.count_tokens(model=MODEL, **more).input_tokens
    used = ask("", **more).usage
    assert counted == used.input_tokens + (used.cache_read_input_tokens or 0) + (used.cache_creation_input_tokens or 0), (counted, used)


@check
def no_such_model():
    error = raises(anthropic.NotFoundError, ask, "x", model="nobody")
    assert error.body["type"] == "error" and error.body["error"]["type"] == "not_found_error", error.body
    assert "nobody" in error.body["error"]["message"], error.body


@check
def bad_field():
    for more in ({"extra_body": {"temperature": 9}}, {"extra_body": {"temprature": 1}}, {"max_tokens": 0}):
        error = raises(anthropic.BadRequestError, ask, "x", **more)
        name = next(iter(more.get("extra_body", more)))
        assert error.body["error"]["type"] == "invalid_request_error" and name in error.body["error"]["message"], error.body


@check
def image():
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    error = raises(anthropic.BadRequestError, ask, "", messages=[{"role": "user", "content": [picture]}])
    assert "image" in error.body["error"]["message"], error.body


@check
def too_long():
    error = raises(anthropic.BadRequestError, ask, "word " * 20_000, model=TINY)
    assert error.body["error"]["type"] == "invalid_request_error" and "token" in error.body["error"]["message"], error.body


@check
def wrong_key():
    error = raises(anthropic.AuthenticationError, client.with_options(api_key="wrong").messages.create, model=MODEL, max_tokens=8, messages=user("x"))
    assert error.body["error"]["type"] == "authentication_error", error.body


@check
def bearer():
    with anthropic.Anthropic(base_url=NODE, auth_token=KEY, api_key=None, max_retries=0, timeout=100) as bearer:
        assert texts(bearer.messages.create(model=MODEL, max_tokens=64, messages=user("Go"))) == FOX


@check
def no_retries():
    sent = []
    http = anthropic.DefaultHttpxClient(event_hooks={"request": [sent.append]}, timeout=60)
    eager = anthropic.Anthropic(base_url=NODE, api_key=KEY, max_retries=3, http_client=http)
    x = {"max_tokens": 8, "messages": user("x")}
    raises(anthropic.BadRequestError, eager.messages.create, model=MODEL, extra_body={"top_p": 7}, **x)
    raises(anthropic.NotFoundError, eager.messages.create, model="nobody", **x)
    raises(anthropic.AuthenticationError, eager.with_options(api_key="wrong").messages.create, model=MODEL, **x)
    assert len(sent) == 3, f"{len(sent)} requests for 3 mistakes"


@check
def cancel():
    for _ in range(ABANDONED):
        with client.messages.stream(model=MODEL, max_tokens=100_000, messages=user("#LONG")) as events:
            assert next(iter(events.text_stream))
    assert texts(ask("Say something")) == FOX


@check
def gives_up():
    for _ in range(ABANDONED):
        raises(anthropic.APITimeoutError, client.with_options(timeout=1).messages.create, model=MODEL, max_tokens=20_000, messages=user("#LONG"))
    assert texts(ask("Say something")) == FOX


@check
async def concurrent():
    async with anthropic.AsyncAnthropic(base_url=NODE, api_key=KEY, max_retries=0, timeout=100) as many:
        async def one(index):
            if index % 2:
                async with many.messages.stream(model=MODEL, max_tokens=64, messages=user("Go")) as events:
                    return await events.get_final_text()
            return texts(await many.messages.create(model=MODEL, max_tokens=64, messages=user("Go")))

        assert await asyncio.gather(*map(one, range(12))) == [FOX] * 12


@check
def raw_tool_json():
    """What the accumulator reads: the pieces of a call's input, joined, are JSON."""
    pieces = [event.delta.partial_json for event in ask("#TOOL", tools=[TOOL], stream=True)
              if event.type == "content_block_delta" and event.delta.type == "input_json_delta"]
    assert json.loads("".join(pieces)) == {"city": "Paris"}, pieces


main()
