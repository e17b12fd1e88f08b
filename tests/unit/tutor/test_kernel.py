"""What the kernel refuses a program whose interpreter has been overcome: tried without Python's own fence."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from askq.localapi.tutor import kernel

KERNEL = Path(kernel.__file__)
PROBE = """
import ctypes, importlib.util, json, os, resource, signal, socket, sys, threading
path, folder, secret, file = sys.argv[1:]
spec = importlib.util.spec_from_file_location("kernel", path)
kernel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernel)
os.chdir(folder)
listening = socket.socket()
listening.bind(("127.0.0.1", 0))
kernel.enter(sys.path[1:], folder, [file])
libc = ctypes.CDLL(None, use_errno=True)

def called(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "refused")

def written(name, text="x"):
    with open(name, "w") as opened:
        opened.write(text)

def thread():
    threading.Thread(target=print).start()

tries = {
    "socket": socket.socket,
    "socket pair": socket.socketpair,
    "connect": lambda: listening.connect(listening.getsockname()),
    "fork": os.fork,
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "thread": thread,
    "clone3": lambda: called(435, None, 0),
    "io_uring": lambda: called(425, 1, None),
    "kill": lambda: os.kill(os.getppid(), 0),
    "signal": lambda: called(TGKILL, os.getppid(), os.getppid(), 0),
    "limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "link": lambda: os.link(secret, "link"),
    "symbolic link": lambda: os.symlink(secret, "link"),
    "mount": lambda: called(MOUNT, b"none", b"/mnt", b"tmpfs", 0, None),
    "read outside": lambda: open(secret).read(),
    "read the system's": lambda: open("/etc/passwd").read(),
    "list outside": lambda: os.listdir(os.path.dirname(folder)),
    "write outside": lambda: written(os.path.join(os.path.dirname(folder), "new")),
    "write what may be read": lambda: written(file),
    "delete outside": lambda: os.remove(secret),
    "write in folder": lambda: written("mine.txt"),
    "read in folder": lambda: open("mine.txt").read(),
    "move in folder": lambda: (os.mkdir("sub"), os.rename("mine.txt", "other.txt"), os.remove("other.txt")),
    "read the file": lambda: open(file).read(),
    "import": lambda: __import__("decimal"),
    "look at a limit": lambda: resource.getrlimit(resource.RLIMIT_CORE),
}
found = {}
for name, attempt in tries.items():
    try:
        attempt()
        found[name] = "done"
    except (OSError, RuntimeError, ValueError):
        found[name] = "refused"
print(json.dumps(found), flush=True)
os.abort()
"""
ALLOWED = {
    "write in folder",
    "read in folder",
    "move in folder",
    "read the file",
    "import",
    "look at a limit",
}
OF_FILES = {
    "read outside",
    "read the system's",
    "list outside",
    "write outside",
    "write what may be read",
    "delete outside",
}


def _landlock() -> bool:
    return int(ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), 1)) >= 1


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"),
    reason="seccomp filters are written for Linux on x86-64 and ARM64",
)
def test_the_kernel_refuses_what_pythons_fence_would_have(tmp_path: Path) -> None:
    folder, secret, file = tmp_path / "work", tmp_path / "secret.txt", tmp_path / "font.ttf"
    folder.mkdir()
    secret.write_text("secret")
    file.write_text("glyphs")
    arm = platform.machine() == "aarch64"
    probe = PROBE.replace("TGKILL", "131" if arm else "234").replace("MOUNT", "40" if arm else "165")
    ended = subprocess.run(
        [sys.executable, "-I", "-c", probe, str(KERNEL), str(folder), str(secret), str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.stdout, ended.stderr
    found = json.loads(ended.stdout)
    # Where the kernel has no Landlock, seccomp stands alone.
    looked_at = found if _landlock() else {name: said for name, said in found.items() if name not in OF_FILES}
    assert {name for name, said in looked_at.items() if said == "done"} == ALLOWED
    assert secret.read_text() == "secret"
    assert ended.returncode == -6, "a process may abort"
