"""Kernels forked from one process that has already imported the libraries: saves 3 s a cell on 2 cores.

The 15 cells of ``smoke`` take 73 s with it and 121 s without; for the 53 cells of ``quick`` that is a fifth.

``forkserver()`` starts the server. ``kernel_manager()`` starts a small client process in place of a kernel.
The client asks the server for a fork, passes on its streams, environment and folder, and lives as long as the
kernel; each of the two ends with the other. Only libraries are imported before the fork, never our own code:
a kernel always runs the code that is on disk.
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

ADDRESS = "WFNB_FORKSERVER"  # environment variable: the path of the server's socket
# Forking is safe only without threads and drivers, and an import may open the driver of a GPU.
CAN_FORK = sys.platform == "linux" and not Path("/dev/nvidiactl").exists()
_IMPORTS = (
    "torch", "timm", "torchvision", "sklearn.datasets", "sklearn.linear_model", "pandas", "matplotlib.pyplot",
    "seaborn", "ipykernel.kernelapp",
)  # fmt: skip


@contextlib.contextmanager
def forkserver(environment: dict[str, str]) -> Iterator[None]:
    """Fork the kernels of child processes while open; does nothing where ``CAN_FORK`` is false.

    Args:
        environment: Variables that libraries read when they are imported, such as ``OMP_NUM_THREADS``.
    """
    if not CAN_FORK:
        yield
        return
    environment = {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline"
    } | environment  # as kernels have it
    with tempfile.TemporaryDirectory(prefix="wfnb-") as folder:
        address = f"{folder}/forkserver"
        # the server ends with its standard input, that is, also when this process is killed
        with subprocess.Popen(
            [sys.executable, "-m", "wfnb.reproduction.forkserver", address],
            stdin=subprocess.PIPE, env=os.environ | environment, start_new_session=True,
        ) as server:  # fmt: skip
            os.environ[ADDRESS] = address
            try:
                yield
            finally:
                del os.environ[ADDRESS]
                server.terminate()


def kernel_manager() -> type:
    """The class that nbclient starts kernels with: by the fork server if there is one."""
    from jupyter_client.manager import AsyncKernelManager

    if ADDRESS not in os.environ:
        return AsyncKernelManager
    client = [sys.executable, "-m", "wfnb.reproduction.forkserver", os.environ[ADDRESS]]

    class ForkedKernelManager(AsyncKernelManager):
        def format_kernel_cmd(self, extra_arguments: list[str] | None = None) -> list[str]:
            return [*client, self.connection_file]

    return ForkedKernelManager


def _serve(address: str) -> None:
    """Fork a kernel for each connection until standard input ends."""
    del sys.path[0]  # the folder of the process that started this one
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen(64)  # clients wait during the imports
        for name in _IMPORTS:
            importlib.import_module(name)
        for name in [name for name in sys.modules if name.partition(".")[0] == "wfnb"]:
            del sys.modules[name]  # this module's packages, for kernels to import anew
        gc.freeze()  # a collection in a fork would copy all shared pages
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
            connection = listener.accept()[0]
            if os.fork():
                connection.close()
                continue
            listener.close()
            _become_kernel(connection)


def _become_kernel(connection: socket.socket) -> None:
    """Take the client's streams, environment and folder, and run a kernel until the client ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    for number, stream in enumerate(socket.recv_fds(connection, 1, 3)[1]):
        os.dup2(stream, number)
        os.close(stream)
    request = json.loads(connection.makefile().readline())
    connection.sendall(b" ")
    for name in [name for name in sys.modules if name.partition(".")[0] == "wfnb"]:
        del sys.modules[name]  # our package, which this module belongs to, is imported anew
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    threading.Thread(target=_exit_with, args=[connection], daemon=True).start()

    from ipykernel.kernelapp import IPKernelApp

    # the kernel also watches its parent, the server, and ends with it
    parent = f"--IPKernelApp.parent_handle={os.getppid()}"
    IPKernelApp.launch_instance(argv=["-f", request["connection_file"], parent])
    os._exit(0)


def _exit_with(connection: socket.socket) -> None:
    """Exit when the other end of the connection is closed."""
    with contextlib.suppress(OSError):
        connection.recv(1)
    os._exit(0)


def _request(address: str, connection_file: str) -> None:
    """Ask for a kernel and wait until it or the parent process ends; without a server, become a kernel."""
    parent = os.getppid()
    request = {"environment": dict(os.environ), "folder": os.getcwd(), "connection_file": connection_file}
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
            socket.send_fds(connection, [b" "], [0, 1, 2])
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = connection.recv(1)
        except OSError:
            answer = b""
        if not answer:
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", connection_file])
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # nbclient interrupts a kernel before it kills it
        while not select.select([connection], [], [], 1)[0] and os.getppid() == parent:
            pass


if __name__ == "__main__":
    (_request if len(sys.argv) > 2 else _serve)(*sys.argv[1:])
