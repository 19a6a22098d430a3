"""openai-python against a node: chat completions, responses, completions, models, errors."""
import asyncio
import json

import openai
from harness import ABANDONED, COUNTING, DONE, FOX, KEY, MODEL, NODE, TINY, WEATHER, check, main, raises
from pydantic import BaseModel

client = openai.OpenAI(base_url=f"{NODE}/v1", api_key=KEY, max_retries=0, timeout=100)
TOOL = {"type": "function", "function": WEATHER}
# The same in the shape of /v1/responses.
FLAT = {"type": "function", "strict": True, **WEATHER}


class Answer(BaseModel):
    answer: int
    ok: bool


def ask(text, **more):
    return client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **more)


@check
def models():
    listed = {model.id: model for model in client.models.list()}
    assert {MODEL, TINY} <= set(listed), listed
    assert all(model.object == "model" and model.created for model in listed.values())
    assert client.models.retrieve(MODEL).id == MODEL


@check
def chat():
    answer = ask("Say something")
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", FOX, "stop"), choice
    assert answer.object == "chat.completion" and answer.model == MODEL and answer.id and answer.created
    usage = answer.usage
    assert usage.completion_tokens and usage.prompt_tokens + usage.completion_tokens == usage.total_tokens, usage


@check
def chat_real_model():
    answer = client.chat.completions.create(
        model=TINY, messages=[{"role": "user", "content": "Hello"}], max_completion_tokens=8, temperature=0, seed=1)
    assert answer.choices[0].message.content and answer.usage.completion_tokens <= 8, answer


@check
def system():
    without = ask("Say something").usage.prompt_tokens
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "You are terse and polite."}, {"role": "user", "content": "Say something"}]
        answer = client.chat.completions.create(model=MODEL, messages=messages)
        assert answer.choices[0].message.content == FOX
        assert answer.usage.prompt_tokens > without, f"the {role} message did not reach the prompt"


@check
def limits():
    cut = ask("#LONG", max_completion_tokens=4)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 4, cut
    stopped = ask("#STOP", stop=["<<HALT>>"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("alpha beta", "stop"), stopped


@check
def stream():
    chunks = list(ask("#EMOJI", stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "Party 🎉 fam 👩‍👩‍👧 ja 日本語 fin", text
    assert len(chunks) > 4 and len({chunk.id for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    last = chunks[-1]
    assert not last.choices and last.usage.total_tokens > last.usage.completion_tokens > 0, last
    assert all(chunk.usage is None for chunk in chunks[:-1])


@check
def stream_helper():
    with client.chat.completions.stream(model=MODEL, messages=[{"role": "user", "content": "Go"}]) as events:
        deltas = [event.delta for event in events if event.type == "content.delta"]
        final = events.get_final_completion()
    assert "".join(deltas) == FOX == final.choices[0].message.content


@check
def thinking():
    message = ask("#THINK").choices[0].message
    assert "ponder first" in message.reasoning_content and message.content.strip() == "Pondered answer", message
    chunks = [chunk.choices[0].delta for chunk in ask("#THINK", stream=True) if chunk.choices]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in chunks)
    assert "ponder first" in thought and "".join(delta.content or "" for delta in chunks).strip() == "Pondered answer"


@check
def tools():
    asked = [{"role": "user", "content": "#TOOL"}]
    first = client.chat.completions.create(model=MODEL, messages=asked, tools=[TOOL]).choices[0]
    [call] = first.message.tool_calls
    assert first.finish_reason == "tool_calls" and call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}, call
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    told = [*asked, first.message.model_dump(exclude_none=True), result]
    last = client.chat.completions.create(model=MODEL, messages=told, tools=[TOOL]).choices[0]
    assert (last.message.content, last.finish_reason) == (DONE, "stop"), last


@check
def tools_stream():
    pieces, calls = {}, {}
    for chunk in ask("#PARALLEL", tools=[TOOL], stream=True):
        for piece in chunk.choices[0].delta.tool_calls or []:
            calls.setdefault(piece.index, piece)
            pieces.setdefault(piece.index, []).append(piece.function.arguments or "")
    assert [call.function.name for call in calls.values()] == ["get_weather"] * 2, calls
    assert len({call.id for call in calls.values()}) == 2, calls
    found = [json.loads("".join(pieces[index])) for index in sorted(pieces)]
    assert found == [{"city": "Paris"}, {"city": "Tokyo"}], found


@check
def tool_choice():
    assert ask("#TOOL", tools=[TOOL], tool_choice="none").choices[0].message.tool_calls is None
    for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
        message = ask("Say something", tools=[TOOL], tool_choice=choice).choices[0].message
        assert [call.function.name for call in message.tool_calls] == ["get_weather"], (choice, message)
        assert set(json.loads(message.tool_calls[0].function.arguments)) == {"city"}


@check
def parallel_tool_calls():
    # What the script model says in place of a second call is chance, and may never end.
    message = ask("#PARALLEL", tools=[TOOL], parallel_tool_calls=False, max_completion_tokens=200).choices[0].message
    assert len(message.tool_calls) == 1, message


@check
def json_object():
    for text in ("#JSON", "Say something"):
        answer = ask(text, response_format={"type": "json_object"}, max_completion_tokens=200, temperature=0).choices[0]
        assert answer.finish_reason == "stop" and isinstance(json.loads(answer.message.content), dict), answer


@check
def parse():
    for text in ("#JSON", "Say something"):
        answer = client.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": text}], response_format=Answer,
            max_completion_tokens=200, temperature=0)
        assert isinstance(answer.choices[0].message.parsed, Answer), answer


@check
def parse_stream():
    messages = [{"role": "user", "content": "#JSON"}]
    with client.chat.completions.stream(model=MODEL, messages=messages, response_format=Answer) as events:
        assert events.get_final_completion().choices[0].message.parsed == Answer(answer=42, ok=True)


@check
def parse_tool():
    class GetWeather(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(GetWeather, name="get_weather")
    message = client.chat.completions.parse(model=MODEL, messages=[{"role": "user", "content": "#TOOL"}], tools=[tool]).choices[0].message
    assert message.tool_calls[0].function.parsed_arguments == GetWeather(city="Paris"), message


@check
def logprobs():
    for answer in ask("Go", logprobs=True, top_logprobs=2, max_completion_tokens=3).choices[0].logprobs.content:
        assert len(answer.top_logprobs) == 2 and answer.logprob <= 0 and bytes(answer.bytes).decode() == answer.token


@check
def choices_of_many():
    answer = ask("#RANDOM", n=2, max_completion_tokens=8, seed=7)
    assert [choice.index for choice in answer.choices] == [0, 1]


@check
def seed():
    one, same, other = (ask("#RANDOM", seed=s, max_completion_tokens=32, temperature=1).choices[0].message.content for s in (5, 5, 6))
    assert one == same != other, (one, same, other)


@check
def completions():
    answer = client.completions.create(model=MODEL, prompt=["What?", "And?"], max_tokens=64)
    assert [choice.text.strip() for choice in answer.choices] == [FOX, FOX], answer
    chunks = list(client.completions.create(model=MODEL, prompt="Count:", max_tokens=4, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices).strip() == COUNTING, chunks


@check
def no_such_model():
    error = raises(openai.NotFoundError, client.chat.completions.create, model="nobody", messages=[{"role": "user", "content": "x"}])
    assert error.code == "model_not_found" and "nobody" in error.message, error.body
    raises(openai.NotFoundError, client.models.retrieve, "nobody")


@check
def bad_field():
    error = raises(openai.BadRequestError, ask, "x", temperature=9)
    assert error.param == "temperature" and error.type == "invalid_request_error", error.body
    error = raises(openai.BadRequestError, ask, "x", extra_body={"temprature": 1})
    assert error.param == "temprature", error.body


@check
def too_long():
    long = [{"role": "user", "content": "word " * 20_000}]
    error = raises(openai.BadRequestError, client.chat.completions.create, model=TINY, messages=long)
    assert error.code == "context_length_exceeded", error.body


@check
def wrong_key():
    error = raises(openai.AuthenticationError, client.with_options(api_key="wrong").models.list)
    assert error.status_code == 401 and error.code == "invalid_api_key", error.body


@check
def no_retries():
    sent = []
    http = openai.DefaultHttpxClient(event_hooks={"request": [sent.append]}, timeout=60)
    eager = openai.OpenAI(base_url=f"{NODE}/v1", api_key=KEY, max_retries=3, http_client=http)
    x = [{"role": "user", "content": "x"}]
    raises(openai.BadRequestError, eager.chat.completions.create, model=MODEL, messages=x, top_p=7)
    raises(openai.NotFoundError, eager.chat.completions.create, model="nobody", messages=x)
    raises(openai.AuthenticationError, eager.with_options(api_key="wrong").models.list)
    assert len(sent) == 3, f"{len(sent)} requests for 3 mistakes"


@check
def cancel():
    for _ in range(ABANDONED):
        with ask("#LONG", stream=True) as events:
            assert next(iter(events)).choices
    assert ask("Say something").choices[0].message.content == FOX


@check
def gives_up():
    for _ in range(ABANDONED):
        raises(openai.APITimeoutError, client.with_options(timeout=1).chat.completions.create,
               model=MODEL, messages=[{"role": "user", "content": "#LONG"}])
    assert ask("Say something").choices[0].message.content == FOX


@check
async def concurrent():
    async with openai.AsyncOpenAI(base_url=f"{NODE}/v1", api_key=KEY, max_retries=0, timeout=100) as many:
        async def one(index):
            if index % 2:
                events = await many.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Go"}], stream=True)
                return "".join([event.choices[0].delta.content or "" async for event in events if event.choices])
            answer = await many.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Go"}])
            return answer.choices[0].message.content

        assert await asyncio.gather(*map(one, range(12))) == [FOX] * 12


@check
def responses():
    answer = client.responses.create(model=MODEL, input="Say something", instructions="Be terse.")
    assert (answer.output_text, answer.status, answer.object) == (FOX, "completed", "response"), answer
    assert answer.usage.input_tokens and answer.usage.output_tokens
    cut = client.responses.create(model=MODEL, input="#LONG", max_output_tokens=16)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens"), cut


@check
def responses_stream():
    with client.responses.stream(model=MODEL, input="Say something") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events))), [e.type for e in events]
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == FOX == final.output_text


@check
def responses_tools():
    asked = [{"role": "user", "content": "#TOOL"}]
    with client.responses.stream(model=MODEL, input=asked, tools=[FLAT]) as stream:
        events = list(stream)
        first = stream.get_final_response()
    [call] = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"}), call
    deltas = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    [done] = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert "".join(deltas) == done.arguments == call.arguments
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    told = [*asked, *(item.to_dict() for item in first.output), result]
    assert client.responses.create(model=MODEL, input=told, tools=[FLAT]).output_text == DONE


@check
def responses_previous():
    first = client.responses.create(model=MODEL, input="#TOOL", tools=[FLAT], store=True)
    call = next(item for item in first.output if item.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    after = client.responses.create(model=MODEL, input=[result], tools=[FLAT], previous_response_id=first.id)
    assert after.output_text == DONE and after.previous_response_id == first.id, after
    assert client.responses.retrieve(first.id).id == first.id
    client.responses.delete(first.id)
    raises(openai.NotFoundError, client.responses.retrieve, first.id)


@check
def responses_thinking():
    answer = client.responses.create(model=MODEL, input="#THINK")
    kinds = [item.type for item in answer.output]
    assert kinds == ["reasoning", "message"] and answer.output_text.strip() == "Pondered answer", answer


@check
def responses_parse():
    for text in ("#JSON", "Say something"):
        answer = client.responses.parse(model=MODEL, input=text, text_format=Answer, max_output_tokens=200, temperature=0)
        assert isinstance(answer.output_parsed, Answer), answer


@check
def responses_errors():
    raises(openai.NotFoundError, client.responses.create, model="nobody", input="x")
    error = raises(openai.BadRequestError, client.responses.create, model=MODEL, input="x", temperature=9)
    assert error.param == "temperature", error.body
    raises(openai.BadRequestError, client.responses.create, model=MODEL, input=[{"role": "wizard", "content": "x"}])


@check
def responses_cancel():
    for _ in range(ABANDONED):
        with client.responses.create(model=MODEL, input="#LONG", stream=True) as events:
            assert any(event.type == "response.output_text.delta" for event in events)
    assert client.responses.create(model=MODEL, input="Say something").output_text == FOX


@check
def embeddings():
    answer = client.embeddings.create(model=TINY, input=["one", "two"])
    assert [len(row.embedding) > 8 for row in answer.data] == [True, True] and answer.usage.prompt_tokens
    assert answer.data[0].embedding != answer.data[1].embedding


main()
