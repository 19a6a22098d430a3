"""A pytest plugin for llama.cpp's server tests against one server that is there already (server_tests.py starts both).

It writes each outcome to a file at once, so that a run that had to be killed loses nothing; leaves out tests that have
one; stops when the server is gone; and lets nothing reach out of this machine, since many tests fetch models.

Unless SERVER_TESTS_AS_IS is set it also has the tests ask as a client of OpenAI's API does: in requests to the routes of
that API the model is named (most tests name none, or one that is not there), the path begins with /v1, and the names of
headers have no case.
"""
import ipaddress
import json
import os
import re
import socket
import sys
import types
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import requests
from requests.structures import CaseInsensitiveDict

OUT = Path(os.environ["SERVER_TESTS_OUT"])
MODEL = os.environ["SERVER_TESTS_MODEL"]
PORT = int(os.environ["PORT"])
# Also without /v1 on a llama-server.
ROUTES = ("/chat/completions", "/completions", "/embeddings", "/models", "/rerank", "/responses", "/messages",
          "/messages/count_tokens", "/chat/completions/input_tokens")


def record(**entry) -> None:
    with OUT.open("a") as out:
        out.write(json.dumps(entry) + "\n")


def recorded() -> list[dict]:
    return [json.loads(line) for line in OUT.read_text().splitlines()] if OUT.exists() else []


def as_client(url: str, body: object) -> tuple[str, object]:
    parts = urlsplit(url)
    if parts.port != PORT or not (route := next((r for r in ROUTES if parts.path.removeprefix("/v1") == r), None)):
        return url, body
    if isinstance(body, dict) and route != "/models":
        body = body | {"model": MODEL}
    return urlunsplit(parts._replace(path="/v1" + route)), body


def ask_as_clients_do() -> None:
    plain, built = requests.Session.request, httpx._client.BaseClient.build_request

    def request(self, method, url, *args, json=None, **rest):
        url, json = as_client(url, json)
        answer = plain(self, method, url, *args, json=json, **rest)
        # The tests look headers up in a plain dict, by the case that llama-server writes; HTTP's names have none.
        answer.headers = CaseInsensitiveDict({name.title(): value for name, value in answer.headers.items()})
        return answer

    def build_request(self, method, url, *args, json=None, **rest):
        url, json = as_client(str(url), json)
        return built(self, method, url, *args, json=json, **rest)

    requests.Session.request = request
    httpx._client.BaseClient.build_request = build_request


def stay_here() -> None:
    resolve = socket.getaddrinfo

    def getaddrinfo(host, *args, **rest):
        name = host.decode() if isinstance(host, bytes) else host
        try:
            inside = name in (None, "", "localhost") or not ipaddress.ip_address(name).is_global
        except ValueError:
            inside = False
        if not inside:
            raise socket.gaierror(socket.EAI_NONAME, f"{name} is not asked: these tests stay on this machine")
        return resolve(host, *args, **rest)

    def download(url, *_, **__):
        raise OSError(f"{url} is not fetched: these tests stay on this machine")

    socket.getaddrinfo = getaddrinfo
    sys.modules["wget"] = types.SimpleNamespace(download=download)


stay_here()
if not os.environ.get("SERVER_TESTS_AS_IS"):
    ask_as_clients_do()


def pytest_collection_modifyitems(config, items) -> None:
    done = {entry["test"] for entry in recorded() if "test" in entry}
    again = [item for item in items if item.nodeid in done]
    items[:] = [item for item in items if item.nodeid not in done]
    config.hook.pytest_deselected(items=again)


def pytest_runtest_logstart(nodeid) -> None:
    record(started=nodeid)


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report) -> None:
    if report.when == "call" or (report.when == "setup" and not report.passed):
        why = ""
        if not report.passed:
            crash = getattr(report.longrepr, "reprcrash", None)
            why = crash.message if crash else str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        why = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>", "…", " ".join(why.split()))
        record(test=report.nodeid, outcome=report.outcome, why=why.split(" + where")[0][:240])


def pytest_runtest_logfinish(nodeid) -> None:
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
    except OSError:
        record(gone=nodeid)
        pytest.exit("the server is gone", 3)
