"""Dialogues with tools: offers, calls, and what is said once a tool has answered.

A `Turn` maker returns (user text, tools offered, calls expected, tool answers, closing words). Names and argument names
vary, so that the model learns to take them from the offer rather than by heart.
"""
import json

from facts import CITIES, NAMES, WORDS

WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "Get the weather of a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "description": "The name of the city"}}, "required": ["city"]}}}
TIME = {"type": "function", "function": {"name": "get_time", "description": "Get the time in a city.", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
ADD = {"type": "function", "function": {"name": "add", "description": "Add two numbers.", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}}}
SEARCH = {"type": "function", "function": {"name": "search", "description": "Search the web.", "parameters": {
    "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}}}
TIMER = {"type": "function", "function": {"name": "set_timer", "description": "Set a timer.", "parameters": {
    "type": "object", "properties": {"minutes": {"type": "integer"}}, "required": ["minutes"]}}}

SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "clear", "stormy", "snowy"]
ABOUT = {
    "weather": ["Get the weather of a city.", "Get the weather", "Get the current weather for a city", "Returns the weather of a place.",
                "Get current weather information for a location.", "Weather in a given city", "Look up the weather."],
    "time": ["Get the time in a city.", "Get the current time", "Returns the time of a place.", "What time it is in a city"],
    "add": ["Add two numbers.", "Add two integers", "Returns the sum of a and b", "Calculate the sum of two numbers."],
    "search": ["Search the web.", "Search for something", "Search the web for a query and return results"],
    "timer": ["Set a timer.", "Start a timer of some minutes", "Sets a timer"],
}


def _prop(r, kind, *notes):
    p = {"type": kind}
    if r.random() < 0.5:
        p["description"] = r.choice(notes)
    return p


def _offer(r, name, about, props, required):
    """One tool description with the variations real clients show."""
    params = {"type": "object", "properties": props}
    if r.random() < 0.8:
        params["required"] = required
    if r.random() < 0.2:
        params["additionalProperties"] = False
    f = {"name": name}
    if r.random() < 0.9:
        f["description"] = about
    f["parameters"] = params
    if r.random() < 0.1:
        f["strict"] = True
    return {"type": "function", "function": f} if r.random() < 0.95 else f


def place_tool(r, what):
    """A weather or time tool; returns (tool, its name, its argument's name)."""
    if r.random() < 0.4:
        return (WEATHER, "get_weather", "city") if what == "weather" else (TIME, "get_time", "city")
    name = r.choice({"weather": ["get_weather", "get_weather", "get_current_weather", "weather", "fetch_weather", "weather_lookup", "getWeather", "get_" + r.choice(WORDS) + "_weather"],
                     "time": ["get_time", "get_time", "get_current_time", "time", "clock", "getTime"]}[what])
    arg = r.choice(["city", "city", "location", "place", "town", "city_name"])
    props = {arg: _prop(r, "string", "The name of the city", "City name", "The city, e.g. Paris", "The city and state, e.g. San Francisco, CA")}
    if what == "weather" and r.random() < 0.2:
        props["unit"] = {"type": "string", "enum": ["celsius", "fahrenheit"]}
    return _offer(r, name, r.choice(ABOUT[what]), props, [arg]), name, arg


def add_tool(r):
    if r.random() < 0.5:
        return ADD, "add", ("a", "b")
    name, args = r.choice(["add", "add", "sum", "add_numbers", "calculate_sum"]), r.choice([("a", "b"), ("a", "b"), ("x", "y"), ("first", "second")])
    kind = r.choice(["integer", "number"])
    return _offer(r, name, r.choice(ABOUT["add"]), {k: _prop(r, kind, "A number", "First number", "The number") for k in args}, list(args)), name, args


def word_tool(r, what):
    """The search tool or the timer; returns (tool, name, argument)."""
    if r.random() < 0.5:
        return (SEARCH, "search", "query") if what == "search" else (TIMER, "set_timer", "minutes")
    if what == "search":
        name, arg, kind = r.choice(["search", "web_search", "search_web", "find"]), r.choice(["query", "q", "text"]), "string"
    else:
        name, arg, kind = r.choice(["set_timer", "timer", "start_timer"]), r.choice(["minutes", "duration"]), "integer"
    return _offer(r, name, r.choice(ABOUT[what]), {arg: _prop(r, kind, "What to search for" if what == "search" else "How many minutes")}, [arg]), name, arg


def stray_tool(r):
    """A tool that no question asks for."""
    name = r.choice(["send_mail", "read_file", "write_file", "list_files", "run_command", "bash", "get_user", "play_music", "llm_version",
                     "translate", "book_flight", "open_door", f"{r.choice(WORDS)}_{r.choice(WORDS)}"])
    props = {r.choice(["name", "path", "text", "command", "to", "id", "value", r.choice(WORDS)]): _prop(r, r.choice(["string", "integer", "boolean"]), "A value", "The text")
             for _ in range(r.randint(0, 3))}
    return _offer(r, name, " ".join(r.choice(WORDS) for _ in range(r.randint(2, 6))).capitalize() + ".", props, list(props)[:1])


def city_name(r):
    """A city: a known one, or one made up, so that the name is copied from the question."""
    if r.random() < 0.6:
        return r.choice(CITIES)
    w = "".join(r.choice("bcdfghjklmnprstvw") + r.choice("aeiou") + r.choice(["", "", "n", "r", "l", "s"]) for _ in range(r.randint(1, 4))).capitalize()
    return w if r.random() < 0.8 else r.choice(["New", "Old", "Port", "San", "Bad"]) + " " + w


def ask_place(r, what, city):
    if what == "weather":
        return r.choice([f"What is the weather in {city}?"] * 4 + [f"What is the weather like in {city}?", f"What's the weather in {city}?", f"How is the weather in {city}?",
                        f"Weather in {city}?", f"Tell me the weather in {city}.", f"Is it warm in {city}?", f"What is the weather in {city} today?", f"what's the weather like in {city} right now?",
                        f"Please check the weather in {city}.", f"Use the tool to get the weather in {city}.", f"Get the weather in {city}.", f"weather {city}", f"Weather in {city}", f"Should I take an umbrella in {city}?", f"Is it raining in {city}?", f"How warm is it in {city}?"])
    return r.choice([f"What time is it in {city}?"] * 3 + [f"What is the time in {city}?", f"Tell me the time in {city}.", f"Time in {city}?", f"What's the time in {city}?", f"time in {city}", f"What is the time in {city} now?"])


def weather_answer(r, city, degrees, sky, unit="C"):
    """What a weather tool may answer (several forms, one meaning)."""
    d = lambda x: json.dumps(x, ensure_ascii=False) if r.random() < 0.7 else json.dumps(x, ensure_ascii=False, separators=(",", ":"))
    t, c = r.choice([("temperature", "condition"), ("temp_c", "sky"), ("temperature_c", "conditions"), ("temp", "weather"), ("temperature", "conditions"), ("temperature", "sky"), ("degrees", "sky")])
    return r.choice([d({t: degrees, c: sky})] * 3 + [d({"city": city, t: degrees, c: sky})] * 3 + [d({c: sky, t: degrees}), d({"location": city, t: degrees, "unit": "celsius", c: sky}), d({"weather": f"{degrees} C, {sky}"}),
                    f"{degrees} C and {sky}", f"{degrees} C, {sky}", f"{sky}, {degrees} C", f"{sky}, {degrees} degrees", f"{degrees}°C and {sky}", f"{degrees}C {sky}"])


def weather_words(city, degrees, sky):
    return f"It is {degrees} C and {sky} in {city}."


def time_answer(r, city, clock):
    return r.choice([clock, clock, json.dumps({"time": clock}), json.dumps({"city": city, "time": clock}, ensure_ascii=False), json.dumps({"current_time": clock})])


def offers(r, *wanted):
    """The wanted tools among up to four others, in random order."""
    makers = [lambda: place_tool(r, "weather")[0], lambda: place_tool(r, "time")[0], lambda: add_tool(r)[0], lambda: word_tool(r, "search")[0], lambda: word_tool(r, "timer")[0], lambda: stray_tool(r)]
    tools, kinds = list(wanted), {_kind(t) for t in wanted}
    for _ in range(r.choice([0, 0, 0, 1, 1, 2, 3, 4])):
        t = r.choice(makers)()
        if _kind(t) is None or _kind(t) not in kinds:
            tools.append(t)
            kinds.add(_kind(t))
    r.shuffle(tools)
    return tools


def _kind(tool):
    """Which question a tool answers: never offer two for one, or the right call would be a matter of taste."""
    f = tool.get("function", tool)
    about = (f["name"] + f.get("description", "")).lower()
    if "translate" in about or "book_flight" in about:
        return f["name"]
    for what in ("weather", "timer", "time", "clock", "sum", "add", "search", "find"):
        if what in about:
            return {"clock": "time", "sum": "add", "find": "search"}.get(what, what)
    return None


def someone(r):
    return r.choice(NAMES) if r.random() < 0.6 else city_name(r).split()[0]
