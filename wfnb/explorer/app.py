"""The explorer as a web page: Voila serves the page cells of ``07_explorer``, with one kernel per visitor."""

import re
import socket
import threading
import time

from wfnb.explorer.page import make_demo, openable
from wfnb.paths import notebooks_folder
from wfnb.progress import Progress

__all__ = ["free_port", "page_only", "serve"]

NOTEBOOK = "07_explorer.ipynb"
EXTERNAL_STYLE = re.compile(r'<link rel="stylesheet" href="https://[^>]*>')


def free_port(ip: str, first: int, tries: int = 50) -> int:
    """The first free port from ``first`` on.

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
    raise ValueError(f"no free port among {tries} from {first} on: choose another one with --port.")


def page_only(handler, notebook, cwd: str):
    """Hook of Voila: keep the parameters and the cells tagged ``page``; remove links to other servers."""
    write = handler.write
    # Voila's template links icons from a content network; this page does not use them
    handler.write = lambda chunk: write(EXTERNAL_STYLE.sub("", chunk) if isinstance(chunk, str) else chunk)
    notebook.cells = [c for c in notebook.cells if {"parameters", "page"} & set(c.metadata.get("tags", []))]
    return notebook


def serve(ip: str = "127.0.0.1", port: int = 8866) -> None:
    """Serve the explorer until it is interrupted; prints the address when the server answers.

    If there is no untraining run to show, the digits run is made first (under a minute).

    Raises:
        FileNotFoundError: Voila is not installed.
        ValueError: No port is free.
    """
    try:
        from voila.app import Voila
    except ImportError as error:
        raise FileNotFoundError("Voila is not installed: pip install 'wfnb[app]'.") from error
    from traitlets.config import Config

    if not openable():
        print("no run to show: ResNet-18 is trained and untrained on digits first", flush=True)
        make_demo(Progress)
    port = free_port(ip, port)
    page = {"prelaunch_hook": page_only, "show_tracebacks": True, "strip_sources": True}
    server = {"ip": ip, "port": port, "open_browser": False, "log_level": "WARN"}
    threading.Thread(target=_announce, args=(ip, port), daemon=True).start()
    Voila.launch_instance(
        argv=[str(notebooks_folder() / NOTEBOOK)],
        config=Config({"Voila": server, "VoilaConfiguration": page}),
    )


def _announce(ip: str, port: int, patience: float = 60) -> None:
    """Print the address as soon as the server accepts connections."""
    host = "127.0.0.1" if ip == "0.0.0.0" else ip
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, port)) == 0:
                print(f"the explorer: http://{host}:{port}/   (stop with Ctrl-C)", flush=True)
                return
        time.sleep(0.1)
