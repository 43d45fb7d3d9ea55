"""The explorer as a web page: Voila serves the cells of ``07_explorer`` that make up the page, one kernel a visitor."""

import re
import socket
import threading
import time

from wfnb.explorer.widgets import make_demo
from wfnb.paths import notebooks_folder
from wfnb.progress import Progress
from wfnb.reproduction.runs import found

__all__ = ["free_port", "serve"]

NOTEBOOK = "07_explorer.ipynb"
OUTSIDE = re.compile(r'<link rel="stylesheet" href="https://[^>]*>')


def free_port(ip: str, first: int, tries: int = 50) -> int:
    """The first port from ``first`` on that nobody listens on.

    Raises:
        ValueError: None of ``tries`` ports is free.
    """
    for port in range(first, min(first + tries, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((ip, port))
                return port
            except OSError:
                continue
    raise ValueError(f"no free port from {first} on at {ip}: name another one with --port.")


def page_only(handler, notebook, cwd):
    """Leave the cells that make up the page, the parameters and those tagged ``page``, and no address outside of this server."""
    write = handler.write
    # Voila's template asks a content network for icons that this page does not use
    handler.write = lambda chunk: write(OUTSIDE.sub("", chunk) if isinstance(chunk, str) else chunk)
    notebook.cells = [c for c in notebook.cells if {"parameters", "page"} & set(c.metadata.get("tags", []))]
    return notebook


def serve(ip: str = "127.0.0.1", port: int = 8866) -> None:
    """Serve the explorer until it is interrupted, and print its address once it answers.

    Where no untraining run is finished, the digits run is made first (under a minute).
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise FileNotFoundError("Voila is not installed: pip install 'wfnb[app]'.") from error
    from traitlets.config import Config

    if not found("untrain"):
        print("no finished run: ResNet-18 is trained and untrained on digits first", flush=True)
        make_demo(Progress)
    port = free_port(ip, port)
    settings = Config(
        {
            "Voila": {"ip": ip, "port": port, "open_browser": False, "log_level": "WARN"},
            "VoilaConfiguration": {
                "prelaunch_hook": page_only,
                "show_tracebacks": True,
                "strip_sources": True,
            },
        }
    )
    threading.Thread(target=_announce, args=(ip, port), daemon=True).start()
    Voila.launch_instance(argv=[str(notebooks_folder() / NOTEBOOK)], config=settings)


def _announce(ip: str, port: int, patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1" if ip == "0.0.0.0" else ip, port)) == 0:
                print(
                    f"the explorer: http://{'127.0.0.1' if ip == '0.0.0.0' else ip}:{port}/   (Ctrl-C ends it)",
                    flush=True,
                )
                return
        time.sleep(0.1)
