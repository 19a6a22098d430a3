"""idle.py URL: waits up to a minute until a node's metrics say that nothing is generated and nobody waits."""
import re
import sys
import time
import urllib.request

# Gauges of what goes on; a family that is missing counts as one that is not 0.
WATCHED = ("mesh_llm_generations_in_flight", "mesh_llm_engine_running", "mesh_llm_engine_waiting", "mesh_llm_engine_kv_bytes")


def busy(url: str) -> dict[str, float]:
    """Those that are not 0."""
    text = urllib.request.urlopen(url + "/metrics", timeout=10).read().decode()
    found = {name: [float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.M)] for name in WATCHED}
    return {name: sum(values) if values else float("nan") for name, values in found.items() if not values or any(values)}


def main(url: str) -> int:
    end = time.monotonic() + 60
    while left := busy(url):
        if time.monotonic() > end:
            print(f"after a minute there is still: {left}")
            return 1
        time.sleep(0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
