"""codex, headless, against a node's /v1/responses."""
import json

from agent import AGENT_MODEL, accepted, posts, program, run
from harness import DONE, FOX, check, main

CODEX = ["node", program("@openai/codex/bin/codex.js")]
CONFIG = f"""
model = "{AGENT_MODEL}"
model_provider = "mesh"
model_context_window = 131072

[model_providers.mesh]
name = "mesh-llm"
base_url = "{{url}}/v1"
env_key = "MESH_LLM_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


def codex(prompt, key="{key}"):
    # The sandbox is codex's own affair, and needs privileges that a container has not.
    command = [*CODEX, "exec", "--json", "--dangerously-bypass-approvals-and-sandbox", prompt]
    return run(command, files={"home/.codex/config.toml": CONFIG}, MESH_LLM_API_KEY=key)


def said(done):
    events = [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]
    items = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item["text"] for item in items if item["type"] == "agent_message"]


@check
def tool_call():
    done = codex("#AGENT please run the command")
    accepted(done.requests)
    assert (done.status, said(done), done.marker) == (0, [DONE], "exec-ran"), done
    last = posts(done.requests, "/v1/responses")[-1]["input"]
    assert [item["type"] for item in last[-2:]] == ["function_call", "function_call_output"], last


@check
def answer():
    done = codex("Say something")
    accepted(done.requests)
    assert (done.status, said(done)) == (0, [FOX]), done


@check
def wrong_key():
    done = codex("Say something", key="wrong")
    sent = posts(done.requests, "/v1/responses")
    assert done.status != 0 and len(sent) == 1, f"{len(sent)} requests, status {done.status}: {done.said}"


main()
