"""LangChain against a node: ChatOpenAI (chat completions and responses) and ChatAnthropic, the same checks for each."""
import anthropic
import openai
from harness import ABANDONED, DONE, FOX, KEY, MODEL, NODE, TINY, check, main, raises_heir
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Answer(BaseModel):
    """An answer."""

    answer: int
    ok: bool


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def chat_openai(model=MODEL, api_key=KEY, **more):
    settings = {"model": model, "base_url": f"{NODE}/v1", "api_key": api_key, "max_tokens": 256, "stream_usage": True}
    return ChatOpenAI(**{**settings, "max_retries": 0, "timeout": 100, **more})


def chat_responses(**more):
    return chat_openai(use_responses_api=True, **more)


def chat_anthropic(model=MODEL, api_key=KEY, **more):
    settings = {"model": model, "base_url": NODE, "api_key": api_key, "max_tokens": 256}
    return ChatAnthropic(**{**settings, "max_retries": 0, "timeout": 100, **more})


CHATS = {"openai": (chat_openai, openai), "responses": (chat_responses, openai), "anthropic": (chat_anthropic, anthropic)}


def on_each_chat(function):
    """Registers the check once a chat model, under its name."""
    for name, (connect, sdk) in CHATS.items():
        def one(connect=connect, sdk=sdk):
            return function(connect, sdk)

        one.__name__ = f"{name}_{function.__name__}"
        check(one)


@on_each_chat
def invoke(connect, _):
    answer = connect().invoke([SystemMessage("Be terse."), HumanMessage("Say something")])
    assert answer.text == FOX, answer
    assert answer.usage_metadata["input_tokens"] and answer.usage_metadata["output_tokens"], answer
    tiny = connect(model=TINY, temperature=0, max_tokens=16).invoke("Hello")
    assert tiny.text and tiny.usage_metadata["output_tokens"] <= 16, tiny


@on_each_chat
def stream(connect, _):
    pieces = list(connect().stream("#EMOJI"))
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.text == "Party 🎉 fam 👩‍👩‍👧 ja 日本語 fin" and len(pieces) > 4, whole
    assert whole.usage_metadata["input_tokens"] and whole.usage_metadata["output_tokens"], whole


@on_each_chat
def tools(connect, _):
    model = connect().bind_tools([get_weather])
    asked = [HumanMessage("#PARALLEL")]
    first = model.invoke(asked)
    assert [call["args"] for call in first.tool_calls] == [{"city": "Paris"}, {"city": "Tokyo"}], first
    results = [get_weather.invoke(call) for call in first.tool_calls]
    assert model.invoke([*asked, first, *results]).text == DONE


@on_each_chat
def tools_stream(connect, _):
    whole = None
    for piece in connect().bind_tools([get_weather]).stream("#TOOL"):
        whole = piece if whole is None else whole + piece
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [("get_weather", {"city": "Paris"})], whole


@on_each_chat
def tool_choice(connect, _):
    answer = connect().bind_tools([get_weather], tool_choice="get_weather").invoke("Say something")
    assert [call["name"] for call in answer.tool_calls] == ["get_weather"], answer


@on_each_chat
def structured_schema(connect, _):
    for text in ("#JSON", "Say something"):
        assert isinstance(connect(temperature=0).with_structured_output(Answer, method="json_schema").invoke(text), Answer)


@on_each_chat
def structured_call(connect, _):
    assert isinstance(connect().with_structured_output(Answer, method="function_calling").invoke("Say something"), Answer)


@on_each_chat
def errors(connect, sdk):
    # LangChain's own heirs of the SDK's classes.
    raises_heir(sdk.NotFoundError, connect(model="nobody").invoke, "x")
    raises_heir(sdk.BadRequestError, connect(top_p=7).invoke, "x")
    raises_heir(sdk.AuthenticationError, connect(api_key="wrong").invoke, "x")


@on_each_chat
def cancel(connect, _):
    for _ in range(ABANDONED):
        pieces = connect(max_tokens=100_000).stream("#LONG")
        assert next(pieces) is not None
        pieces.close()
    assert connect().invoke("Say something").text == FOX


@on_each_chat
def batch(connect, _):
    assert [answer.text for answer in connect().batch(["Go"] * 8)] == [FOX] * 8


@check
def previous_response():
    model = chat_responses(use_previous_response_id=True, store=True).bind_tools([get_weather])
    asked = [HumanMessage("#TOOL")]
    first = model.invoke(asked)
    [call] = first.tool_calls
    assert model.invoke([*asked, first, get_weather.invoke(call)]).text == DONE


@check
def anthropic_thinking():
    answer = chat_anthropic(thinking={"type": "enabled", "budget_tokens": 1024}, max_tokens=2048).invoke("#THINK")
    assert [block["type"] for block in answer.content_blocks] == ["reasoning", "text"], answer
    assert "ponder first" in answer.content_blocks[0]["reasoning"], answer


main()
