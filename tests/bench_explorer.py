"""Milliseconds from a key press to repainted numbers and grid, in headless Chromium on the served page.

    python tests/bench_explorer.py  # or: make bench-explorer

Writes runs/bench/explorer.json: the median and 95th percentile of 50 moves of the slider, and all times. The
time is measured in the browser, from the keydown event to the frame after the numbers and the grid of the new
class are in the page. Makes the digits run if no run is finished.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time

import torch

from wfnb.device import device_name
from wfnb.explorer.app import free_port
from wfnb.explorer.page import make_demo, openable
from wfnb.paths import runs_folder, write_whole

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
MOVES = 50
WATCH = """() => {
  const numbers = document.querySelector(".wfnb-numbers"), grid = document.querySelector(".wfnb-grid");
  window.times = [];
  let start = 0, seen = new Set();
  document.addEventListener("keydown", () => { start = performance.now(); seen = new Set(); }, true);
  const watch = (element) => new MutationObserver(() => {
    seen.add(element);
    if (seen.size < 2 || !start) return;
    const began = start;
    start = 0;
    const painted = () => window.times.push(performance.now() - began);
    requestAnimationFrame(() => setTimeout(painted));  // the timeout runs after the frame is painted
  }).observe(element, {childList: true, subtree: true, characterData: true});
  watch(numbers);
  watch(grid);
}"""


def measure(address: str) -> list[float]:
    """The times of ``MOVES`` moves, in milliseconds."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.wait_for_selector(".wfnb-numbers .tiles", timeout=120_000)
        page.get_by_role("slider", name="Forget the class").focus()
        time.sleep(2)
        page.evaluate(WATCH)
        key = "ArrowRight"
        for move in range(MOVES):
            if move and move % 10 == 0:
                key = "ArrowLeft" if key == "ArrowRight" else "ArrowRight"
            page.keyboard.press(key)
            page.wait_for_function("n => window.times.length > n", arg=move, timeout=30_000)
            time.sleep(0.1)
        times = page.evaluate("window.times")
        browser.close()
    return times


def main() -> None:
    """Serve the page, measure, write the file."""
    if not openable():
        make_demo()
    port = free_port("127.0.0.1", 18700)
    server = subprocess.Popen([sys.executable, "-m", "wfnb.cli", "app", "--port", str(port)])
    try:
        while socket.socket().connect_ex(("127.0.0.1", port)):
            time.sleep(0.3)
        times = measure(f"http://127.0.0.1:{port}/")
    finally:
        server.terminate()
        server.wait(30)
    result = {
        "moves": len(times),
        "median_ms": round(statistics.median(times), 1),
        "p95_ms": round(statistics.quantiles(times, n=20, method="inclusive")[-1], 1),
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "machine": device_name(torch.device("cpu")),
        "times_ms": [round(t, 1) for t in times],
    }
    kept = runs_folder() / "bench" / "explorer.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_whole(kept, json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name != "times_ms"})


if __name__ == "__main__":
    main()
