"""Notebooks from a process that has everything imported: ``python workflow/forkserver.py combination timesteps=3``.

Importing torch, papermill and matplotlib takes longer than most quick notebooks. So the launcher starts one server
that imports them once; each notebook is executed by two forks of it, one for papermill and one for the kernel. Where
there is no server (started by hand, or on another machine of a cluster) this does the same as ``execute.py``.
"""

import array
import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

SERVER = "SASTC_FORKSERVER"  # environment variable with the server's socket
GPUS = "SASTC_GPUS"  # and one with the GPU of each training that may run at a time: cuda:0,cuda:1
LOCKS = Path(__file__).parents[1] / "results" / ".workflow"
# None of these starts a thread or touches a GPU, which forks would not survive. The inline backend of matplotlib is not
# among them: it looks for its kernel when it is imported.
PRELOADED = (
    "execute", "ipykernel.kernelapp", "jupyter_client.provisioning", "myst_nb", "papermill", "sastc.data.cifar",
    "companion.figures", "companion.report", "sastc.train", "sklearn.datasets", "torch._dynamo",
)  # fmt: skip


def ask(address: str, arguments: list[str]) -> int | None:
    """Have the server execute a command line of ``execute.py``; its exit status, or None if there is no server.

    The notebook computes with the threads of this process, ``OMP_NUM_THREADS``, as it would without a server.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except OSError:
            return None
        terminal = array.array("i", [1, 2])  # stdout and stderr go along
        message = json.dumps([arguments, int(os.environ.get("OMP_NUM_THREADS", "1"))]).encode()
        connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, terminal)])
        try:
            taken = connection.recv(1)  # when it has imported all
        except OSError:
            taken = b""
        if not taken:
            return None
        status = connection.recv(8)  # nothing, if the process was killed
        return int(status) if status else 1


@contextlib.contextmanager
def free_gpu() -> Iterator[list[str]]:
    """A setting that names a GPU which no other training of this checkout has; none where there is no choice."""
    from filelock import FileLock, Timeout

    LOCKS.mkdir(parents=True, exist_ok=True)
    for slot, device in enumerate(filter(None, os.environ.get(GPUS, "").split(","))):
        lock = FileLock(LOCKS / f"gpu-{slot}.lock")  # goes with the process, however it ends
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        try:
            yield [f"device={device}"]
        finally:
            lock.release()
        return
    yield []


def serve(address: str) -> None:
    """Import everything, then fork for every connection until killed.

    Who asks before that waits, so that a launcher with nothing to do need not.
    """
    Path(address).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    for module in PRELOADED:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # finished forks are not waited for
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    """In the fork: execute one notebook, send its exit status, end."""
    status = 1
    try:
        connection.send(b"+")
        message, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        for number, file in enumerate(files, 1):
            os.dup2(file, number)
        arguments, threads = json.loads(message)
        kernel = ForkedKernel(threads)
        threading.Thread(target=_end_with, args=(connection, kernel), daemon=True).start()
        import execute

        status = execute.main(arguments, kernel_manager_class=_manager(kernel))
        connection.send(str(status).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _end_with(connection: socket.socket, kernel: "ForkedKernel") -> None:
    """Stop when the asking process does: it sends nothing more, so its socket is readable only at its end."""
    connection.recv(1, socket.MSG_PEEK)
    kernel.kill()
    os._exit(1)


class ForkedKernel:
    """A kernel forked before anything else, waiting for its connection file; shaped like a ``Popen``."""

    stdin = stdout = stderr = None

    def __init__(self, threads: int) -> None:
        self.returncode: int | None = None
        read, self._write = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(read)
            return
        os.close(self._write)
        os.setpgid(0, 0)  # an interrupt is sent to the whole group
        file = os.read(read, 4096).decode()
        if file:
            import torch

            torch.set_num_threads(threads)
            os.environ["OMP_NUM_THREADS"] = str(threads)  # for processes of the notebook
            sys.argv = ["ipykernel_launcher", "--IPKernelApp.quiet=True", "--IPKernelApp.log_level=ERROR", "-f", file]
            from ipykernel.kernelapp import launch_new_instance

            launch_new_instance()
        os._exit(0)

    def start(self, connection_file: str) -> None:
        """Become a kernel."""
        os.write(self._write, connection_file.encode())
        os.close(self._write)

    def poll(self) -> int | None:
        """Exit status, or None while it runs."""
        if self.returncode is None and (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            self.returncode = os.waitstatus_to_exitcode(ended[1])
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Exit status, when it has ended."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, number: int) -> None:
        """As of ``Popen``."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """As of ``Popen``."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """As of ``Popen``."""
        self.send_signal(signal.SIGKILL)


def _manager(kernel: ForkedKernel) -> type:
    """Kernel manager that uses this fork instead of starting a process."""
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_client.provisioning import LocalProvisioner

    class Provisioner(LocalProvisioner):
        async def launch_kernel(self, cmd: list[str], **options):
            kernel.start(cmd[cmd.index("-f") + 1])
            self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
            return self.connection_info

    class Manager(AsyncKernelManager):
        async def _async_pre_start_kernel(self, **options):
            self.provisioner = Provisioner(kernel_id="forked", kernel_spec=self.kernel_spec, parent=self)
            return await super()._async_pre_start_kernel(**options)

    return Manager


def main() -> int:
    """Serve, or execute one notebook."""
    if sys.argv[1:2] == ["--serve"]:
        serve(os.environ[SERVER])
    address, arguments = os.environ.get(SERVER), [a for a in sys.argv[1:] if a != "--gpu"]
    with free_gpu() if "--gpu" in sys.argv else contextlib.nullcontext([]) as gpu:
        status = ask(address, arguments + gpu) if address else None
        if status is None:
            execute = str(Path(__file__).with_name("execute.py"))
            return subprocess.call([sys.executable, execute, *arguments, *gpu])
        return status


if __name__ == "__main__":
    sys.exit(main())
