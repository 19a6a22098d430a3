"""opencode, headless, against a node's /v1/chat/completions, and through its Anthropic provider against /v1/messages."""
import json

from agent import AGENT_MODEL, accepted, posts, program, run
from harness import DONE, FOX, check, main

OPENCODE = program("opencode-{os}-{arch}/bin/opencode")
PACKAGES = {"/v1/chat/completions": "@ai-sdk/openai-compatible", "/v1/messages": "@ai-sdk/anthropic"}


def opencode(prompt, path="/v1/chat/completions", key="{key}"):
    provider = {
        "npm": PACKAGES[path],
        "name": "mesh-llm",
        "options": {"baseURL": "{url}/v1", "apiKey": "{env:MESH_LLM_API_KEY}"},
        "models": {AGENT_MODEL: {"name": AGENT_MODEL, "tool_call": True, "limit": {"context": 131072, "output": 4096}}},
    }
    config = {"model": f"mesh/{AGENT_MODEL}", "small_model": f"mesh/{AGENT_MODEL}", "share": "disabled", "autoupdate": False,
              "permission": {"bash": "allow"}, "provider": {"mesh": provider}}
    command = [OPENCODE, "run", "--format", "json", prompt]
    # It would fetch a list of models otherwise, and wait for it.
    return run(command, files={"project/opencode.json": json.dumps(config)}, MESH_LLM_API_KEY=key, OPENCODE_DISABLE_AGENT_MODELS_FETCH="1")


def said(done):
    events = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    return [event["part"]["text"].strip() for event in events if event["type"] == "text"]


@check
def tool_call():
    done = opencode("#AGENT please run the command")
    accepted(done.requests)
    assert (done.status, said(done), done.marker) == (0, [DONE], "bash-ran"), done
    last = posts(done.requests, "/v1/chat/completions")[-1]["messages"]
    assert [message["role"] for message in last[-2:]] == ["assistant", "tool"], last


@check
def tool_call_anthropic():
    done = opencode("#AGENT please run the command", path="/v1/messages")
    accepted(done.requests)
    assert (done.status, said(done), done.marker) == (0, [DONE], "bash-ran"), done


@check
def answer():
    done = opencode("Say something")
    accepted(done.requests)
    assert (done.status, said(done)) == (0, [FOX]), done


@check
def wrong_key():
    done = opencode("Say something", key="wrong")
    sent = posts(done.requests, "/v1/chat/completions")
    # A title and an answer, once each.
    assert "API key" in done.said and len(sent) <= 2, f"{len(sent)} requests, status {done.status}: {done.said}"


main()
