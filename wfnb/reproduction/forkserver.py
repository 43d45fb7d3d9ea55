"""Kernels forked from one process that has imported the libraries already: on its own, each cell of a graph
spends seconds on imports.

``forkserver()`` starts that process; ``kernel_manager()`` has a small one started in the place of a kernel,
which asks for a fork, hands over its streams, environment and folder, and lives as long as the kernel:
neither outlives the other, nor the one who asked. Kernels share nothing but what was imported, which is never
our own code: a run's record names the code that lay on disk when the run began.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["ADDRESS", "CAN_FORK", "forkserver", "kernel_manager"]

ADDRESS = "WFNB_FORKSERVER"  # the environment variable that names the socket
_IMPORTS = (
    "torch",
    "timm",
    "torchvision",
    "sklearn.datasets",
    "sklearn.linear_model",
    "pandas",
    "matplotlib.pyplot",
    "seaborn",
    "ipykernel.kernelapp",
)


# a fork is safe only of a process that holds no thread and no driver: a GPU's may be opened by an import
CAN_FORK = sys.platform == "linux" and not Path("/dev/nvidiactl").exists()


@contextlib.contextmanager
def forkserver(environment: dict[str, str]) -> Iterator[None]:
    """While open, kernels that this process's children start come from a fork; on Linux without an NVIDIA
    GPU, elsewhere nothing changes.

    Args:
        environment: What kernels are to have in theirs from the first, such as ``OMP_NUM_THREADS``, which
            libraries read as they load.
    """
    if not CAN_FORK:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="wfnb-") as folder:
        address = f"{folder}/forkserver"
        inline = {"MPLBACKEND": "module://matplotlib_inline.backend_inline"}  # as kernels have it
        command = [sys.executable, "-m", "wfnb.reproduction.forkserver", address]
        # its standard input ends when this process is killed, and the server with it
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, env=os.environ | environment | inline, start_new_session=True
        ) as server:
            os.environ[ADDRESS] = address
            try:
                yield
            finally:
                del os.environ[ADDRESS]
                server.terminate()


def kernel_manager() -> type:
    """What nbclient is to start kernels with: from a fork where there is a server, else as ever."""
    from jupyter_client.manager import AsyncKernelManager

    if ADDRESS not in os.environ:
        return AsyncKernelManager

    class ForkedKernelManager(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            return [
                sys.executable,
                "-m",
                "wfnb.reproduction.forkserver",
                os.environ[ADDRESS],
                self.connection_file,
            ]

    return ForkedKernelManager


def _serve(address: str) -> None:
    """Fork a kernel for each connection until standard input ends."""
    del sys.path[0]  # the folder of whoever started this one
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)  # who comes during the imports waits
        for name in _IMPORTS:
            importlib.import_module(name)
        gc.freeze()  # a collection in a fork would otherwise copy the pages of all that is shared
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection = listener.accept()[0]
            if os.fork():
                connection.close()
                continue
            listener.close()
            _become_kernel(connection)


def _become_kernel(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, stream in enumerate(socket.recv_fds(connection, 1, 3)[1]):
        os.dup2(stream, number)
        os.close(stream)
    asked = json.loads(connection.makefile().readline())
    connection.sendall(b" ")
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()

    from ipykernel.kernelapp import IPKernelApp

    # it looks after its parent, the server, and ends with it, too
    IPKernelApp.launch_instance(
        argv=["-f", asked["connection_file"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    )
    os._exit(0)


def _end_with(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)


def _ask(address: str, connection_file: str) -> None:
    """Have a kernel forked and wait for its end, or its asker's; where nobody answers, become a kernel."""
    parent = os.getppid()
    asked = {"environment": dict(os.environ), "folder": os.getcwd(), "connection_file": connection_file}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [b" "], [0, 1, 2])
            connection.sendall(json.dumps(asked).encode() + b"\n")
            answer = connection.recv(1)
        except OSError:
            answer = b""
        if not answer:
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", connection_file])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nbclient interrupts a kernel before it kills it
        while not select.select([connection], [], [], 1)[0] and os.getppid() == parent:
            pass


if __name__ == "__main__":
    (_ask if len(sys.argv) > 2 else _serve)(*sys.argv[1:])
