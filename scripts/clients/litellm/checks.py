"""LiteLLM against a node: its openai and its anthropic route, each with the same checks."""
import asyncio
import gc
import json
import os

from harness import ABANDONED, DONE, FOX, KEY, MODEL, NODE, TINY, WEATHER, check, main, raises
from pydantic import BaseModel

# Otherwise it fetches a list of prices when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm  # noqa: E402

litellm.suppress_debug_info = True
litellm.telemetry = False
TOOL = {"type": "function", "function": WEATHER}
ROUTES = {"openai": f"{NODE}/v1", "anthropic": NODE}


class Answer(BaseModel):
    answer: int
    ok: bool


def user(text):
    return [{"role": "user", "content": text}]


def request(route, text, model=MODEL, **more):
    base = {"model": f"{route}/{model}", "api_base": ROUTES[route], "api_key": KEY, "messages": user(text), "max_tokens": 256,
            "num_retries": 0, "timeout": 100}
    return base | more


def ask(route, text, **more):
    return litellm.completion(**request(route, text, **more))


def on_each_route(function):
    """Registers the check once a route, under the route's name."""
    for route in ROUTES:
        def one(route=route):
            return function(route)

        one.__name__ = f"{route}_{function.__name__}"
        check(one)


@on_each_route
def chat(route):
    answer = ask(route, "Say something")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == (FOX, "stop"), answer
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens > 0, answer.usage


@on_each_route
def chat_real_model(route):
    answer = ask(route, "Hello", model=TINY, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content and answer.usage.completion_tokens <= 8, answer


@on_each_route
def system(route):
    told = [{"role": "system", "content": "You are terse and polite."}, *user("Say something")]
    answer = ask(route, "", messages=told)
    assert answer.choices[0].message.content == FOX
    assert answer.usage.prompt_tokens > ask(route, "Say something").usage.prompt_tokens


@on_each_route
def limits(route):
    assert ask(route, "#LONG", max_tokens=4).choices[0].finish_reason == "length"
    assert ask(route, "#STOP", stop=["<<HALT>>"]).choices[0].message.content == "alpha beta"


@on_each_route
def stream(route):
    chunks = list(ask(route, "#EMOJI", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "Party 🎉 fam 👩‍👩‍👧 ja 日本語 fin" and len(chunks) > 4, text
    whole = litellm.stream_chunk_builder(chunks)
    assert whole.choices[0].finish_reason == "stop" and whole.usage.completion_tokens > 4, whole


@on_each_route
def thinking(route):
    # It knows the models that think by their names, unless told.
    more = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2048, "allowed_openai_params": ["thinking"]} if route == "anthropic" else {}
    message = ask(route, "#THINK", **more).choices[0].message
    assert "ponder first" in message.reasoning_content and message.content.strip() == "Pondered answer", message


@on_each_route
def tools(route):
    first = ask(route, "#TOOL", tools=[TOOL]).choices[0]
    [call] = first.message.tool_calls
    assert (first.finish_reason, call.function.name, json.loads(call.function.arguments)) == ("tool_calls", "get_weather", {"city": "Paris"}), first
    told = [*user("#TOOL"), first.message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert ask(route, "", messages=told, tools=[TOOL]).choices[0].message.content == DONE


@on_each_route
def tools_stream(route):
    whole = litellm.stream_chunk_builder(list(ask(route, "#PARALLEL", tools=[TOOL], stream=True)))
    calls = whole.choices[0].message.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "Paris"}, {"city": "Tokyo"}], calls


@on_each_route
def tool_choice(route):
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        message = ask(route, "Say something", tools=[TOOL], tool_choice=choice).choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["get_weather"], (choice, message)


@on_each_route
def json_schema(route):
    for text in ("#JSON", "Say something"):
        answer = ask(route, text, response_format=Answer, temperature=0)
        Answer.model_validate_json(answer.choices[0].message.content)


@on_each_route
def errors(route):
    error = raises(litellm.NotFoundError, ask, route, "x", model="nobody")
    assert "nobody" in str(error), error
    assert "top_p" in str(raises(litellm.BadRequestError, ask, route, "x", top_p=7))
    raises(litellm.AuthenticationError, ask, route, "x", api_key="wrong")
    raises(litellm.ContextWindowExceededError, ask, route, "word " * 20_000, model=TINY)


@on_each_route
def cancel(route):
    for _ in range(ABANDONED):
        events = ask(route, "#LONG", stream=True, max_tokens=100_000)
        assert next(iter(events))
        # It has no close() of its own: letting go of it is what its users do.
        del events
        gc.collect()
    assert ask(route, "Say something").choices[0].message.content == FOX


@on_each_route
async def concurrent(route):
    answers = await asyncio.gather(*(litellm.acompletion(**request(route, "Go")) for _ in range(12)))
    assert [answer.choices[0].message.content for answer in answers] == [FOX] * 12
    events = await litellm.acompletion(**request(route, "Go"), stream=True)
    assert "".join([event.choices[0].delta.content or "" async for event in events]) == FOX


@check
def text_completion():
    answer = litellm.text_completion(model=f"text-completion-openai/{MODEL}", api_base=ROUTES["openai"], api_key=KEY, prompt="What?", max_tokens=64)
    assert answer.choices[0].text.strip() == FOX, answer


@check
def responses():
    answer = litellm.responses(model=f"openai/{MODEL}", api_base=ROUTES["openai"], api_key=KEY, input="Say something")
    texts = [part.text for item in answer.output if item.type == "message" for part in item.content]
    assert (texts, answer.status) == ([FOX], "completed"), answer


@check
def anthropic_messages():
    answer = asyncio.run(litellm.anthropic.messages.acreate(
        model=f"anthropic/{MODEL}", api_base=ROUTES["anthropic"], api_key=KEY, messages=user("Say something"), max_tokens=64))
    assert answer["content"][0]["text"] == FOX, answer


main()
