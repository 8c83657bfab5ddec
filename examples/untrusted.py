"""A program that its user does not trust: it tries things, and says what came of each.

    jail run -- python3 examples/untrusted.py
"""

import os
import pathlib
import socket


def attempt(what, action):
    try:
        outcome = action()
    except OSError as error:
        outcome = f"refused ({error.strerror})"
    print(f"  {what:<34} {outcome}")


def names(folder):
    found = sorted(entry.name for entry in pathlib.Path(folder).iterdir())
    return ", ".join(found[:6]) + (f" and {len(found) - 6} more" if len(found) > 6 else "") if found else "empty"


def write(path):
    with open(path, "w") as file:
        file.write("I was here\n")
    os.remove(path)
    return "written, and removed"


def route(address):
    # By UDP nothing is sent: the kernel only looks for a way.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((address, 53))
    return "there is a way out"


def processes():
    running = sorted((pid for pid in os.listdir("/proc") if pid.isdigit()), key=int)
    return f"{len(running)} seen: {', '.join(running[:6])}"


def status(field):
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return value.strip()
    return "not told"


home = os.path.expanduser("~")
here = os.getcwd()

print("who I am")
attempt("user and group", lambda: f"{os.getuid()}:{os.getgid()}, host {socket.gethostname()}")
attempt("process", lambda: f"{os.getpid()}, child of {os.getppid()}")
attempt("capabilities", lambda: status("CapEff"))
attempt("no_new_privs, filter", lambda: f"{status('NoNewPrivs')}, {status('Seccomp')}")
attempt("environment", lambda: ", ".join(sorted(os.environ)))

print("what I can read")
attempt("this folder", lambda: names(here))
attempt(f"the home, {home}", lambda: names(home))
attempt("its .ssh", lambda: names(os.path.join(home, ".ssh")))
attempt("/etc/shadow", lambda: f"{len(pathlib.Path('/etc/shadow').read_text())} characters")
attempt("other processes", processes)

print("what I can write")
for folder in ("/tmp", home, here, "/usr", "/etc"):
    attempt(folder, lambda: write(os.path.join(folder, "untrusted.txt")))

print("whom I can reach")
attempt("network devices", lambda: ", ".join(name for _, name in socket.if_nameindex()))
attempt("the internet", lambda: route("192.0.2.1"))  # an address for documentation
