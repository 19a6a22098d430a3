"""Claude Code, headless, against a node's /v1/messages."""
import json

from agent import AGENT_MODEL, accepted, posts, program, run
from harness import DONE, FOX, KEY, check, main

CLAUDE = program("@anthropic-ai/claude-code-{os}-{arch}/claude")
ROLES = {f"ANTHROPIC_{role}MODEL": AGENT_MODEL for role in ("", "DEFAULT_HAIKU_", "DEFAULT_SONNET_", "DEFAULT_OPUS_")}
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1"}


def claude(prompt, **environment):
    command = [CLAUDE, "-p", prompt, "--allowedTools", "Bash", "--output-format", "json"]
    return run(command, **{"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_AUTH_TOKEN": "{key}", **ROLES, **QUIET, **environment})


def said(run):
    return json.loads(run.out)["result"]


@check
def tool_call():
    done = claude("#AGENT please run the command")
    accepted(done.requests)
    assert (done.status, said(done), done.marker) == (0, DONE, "cc-ran"), done
    last = posts(done.requests, "/v1/messages")[-1]
    assert [part["type"] for part in last["messages"][-1]["content"]] == ["tool_result"], last["messages"]


@check
def answer():
    done = claude("Say something")
    accepted(done.requests)
    assert (done.status, said(done)) == (0, FOX), done


@check
def api_key_and_title():
    """With a key in x-api-key, and with what it does beside the answer: a title by schema."""
    done = claude("Say something", ANTHROPIC_AUTH_TOKEN="", ANTHROPIC_API_KEY=KEY, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="")
    accepted(done.requests)
    assert (done.status, said(done)) == (0, FOX), done


@check
def context():
    done = claude("/context")
    accepted(done.requests)
    assert done.status == 0 and posts(done.requests, "/v1/messages/count_tokens"), done


@check
def wrong_key():
    # It tries a 401 ten times otherwise, in case its token was just renewed.
    done = claude("Say something", ANTHROPIC_AUTH_TOKEN="wrong", CLAUDE_CODE_MAX_RETRIES="0")
    assert done.status != 0 and "API key" in said(done), f"status {done.status}: {done.said}"


main()
