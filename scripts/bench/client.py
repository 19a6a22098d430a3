"""The measuring client: one streaming chat request at a time or many at once, with what was seen of each."""
import asyncio
import json
import random
import time
from dataclasses import dataclass

import httpx

WORDS = """able acid aged also area army away baby back ball band bank base bath bear beat been beer bell belt best
bird blow blue boat body bomb bond bone book boom born boss both bowl bulk burn bush busy call calm came
camp card care case cash cast cell chat chip city club coal coat code cold come cook cool cope copy core
cost crew crop dark data date dawn days dead deal dean dear debt deep deny desk dial diet disc disk does
done door dose down draw drew drop drug dual duke dust duty each earn ease east easy edge else even ever
evil exit face fact fail fair fall farm fast fate fear feed feel feet fell felt file fill film find fine
fire firm fish five flat flow food foot ford form fort four free from fuel""".split()


def prompt(seed: str, words: int, tail: str = "") -> str:
    """`words` random words, the same for the same seed. The trigger keeps a script model talking for ever."""
    rng = random.Random(seed)
    return " ".join(rng.choices(WORDS, k=words)) + f" {tail} #LONG"


# Parallel streams open this many seconds after one another: Python's HTTP server, which mlx-lm uses, queues five
# connections and loses what comes on top. That is no part of its speed, so all contenders are spared it alike.
STAGGER = 0.005


@dataclass
class Answer:
    """One streamed answer: seconds from sending to the first text and to the end, and what the server counted."""

    first: float
    total: float
    prompt_tokens: int
    completion_tokens: int
    text: str


class Client:
    """Greedy streaming requests to one server and model."""

    def __init__(self, base: str, model: str, timeout: float = 600):
        self.base, self.model = base, model
        self.resets = 0
        self.http = httpx.AsyncClient(timeout=timeout, limits=httpx.Limits(max_connections=None))

    async def open(self, body: dict) -> httpx.Response:
        """The response to a request, its body unread. A connection lost before that is counted and tried again."""
        for _ in range(20):
            try:
                request = self.http.build_request("POST", f"{self.base}/v1/chat/completions", json=body)
                return await self.http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
                self.resets += 1
                await asyncio.sleep(0.05)
        raise RuntimeError("the server keeps closing connections")

    async def ask(self, text: str, max_tokens: int, delay: float = 0) -> Answer:
        """Ask once, after `delay`. An answer shorter than `max_tokens`, or cut off, is an error: its times would not
        compare. The clock runs from the first attempt to connect."""
        await asyncio.sleep(delay)
        body = dict(
            model=self.model, messages=[dict(role="user", content=text)], max_tokens=max_tokens, temperature=0,
            stream=True, stream_options=dict(include_usage=True),
        )
        first, usage, parts = None, None, []
        start = time.perf_counter()
        response = await self.open(body)
        try:
            if response.status_code != 200:
                raise RuntimeError(f"status {response.status_code}: {(await response.aread())[:300]!r}")
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                event = json.loads(line[6:])
                usage = event.get("usage") or usage
                piece = "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))
                if piece:
                    first = first or time.perf_counter() - start
                    parts.append(piece)
        finally:
            await response.aclose()
        total = time.perf_counter() - start
        if not usage or usage["completion_tokens"] != max_tokens or first is None:
            raise RuntimeError(f"wanted {max_tokens} tokens of text, got usage {usage}, text {''.join(parts)[:80]!r}")
        return Answer(first, total, usage["prompt_tokens"], usage["completion_tokens"], "".join(parts))

    async def close(self) -> None:
        await self.http.aclose()


async def words_per_token(client: Client) -> tuple[float, float]:
    """(slope, overhead): a prompt of n words has about slope * n + overhead tokens for this model."""
    few, many = [(await client.ask(prompt("probe", count), 1)).prompt_tokens for count in (20, 220)]
    slope = (many - few) / 200
    return slope, few - 20 * slope


@dataclass
class Plan:
    """What one round asks. Word counts, tokens to generate, numbers of parallel streams, samples per latency row."""

    short_words: int
    long_words: int
    max_tokens: int
    streams: list[int]
    samples: int


async def measure(client: Client, plan: Plan, round_number: int) -> dict:
    """One round. No two prompts of it share a beginning, except where the warm prefix is what is measured."""

    def words(kind: str, count: int, tail: str = "") -> str:
        return prompt(f"{round_number} {kind}", count, tail)

    found = {"ttft_short": [], "ttft_long": [], "ttft_warm": [], "prompt_tokens": {}, "tokens_per_second": {}}
    for sample in range(plan.samples):
        short = await client.ask(words(f"short {sample}", plan.short_words), 8)
        long = await client.ask(words(f"long {sample}", plan.long_words, "first"), 8)
        warm = await client.ask(words(f"long {sample}", plan.long_words, "second"), 8)
        for name, answer in (("short", short), ("long", long), ("warm", warm)):
            found[f"ttft_{name}"].append(answer.first)
            found["prompt_tokens"].setdefault(name, []).append(answer.prompt_tokens)
        found["sample_text"] = short.text
    for count in plan.streams:
        texts = [words(f"stream {index} of {count}", plan.short_words) for index in range(count)]
        start = time.perf_counter()
        answers = await asyncio.gather(*(
            client.ask(text, plan.max_tokens, index * STAGGER) for index, text in enumerate(texts)
        ))
        wall = time.perf_counter() - start
        found["tokens_per_second"][count] = sum(answer.completion_tokens for answer in answers) / wall
        found[f"ttft_streams_{count}"] = [answer.first for answer in answers]
    return found
