"""A client of jail's broker. docs/ipc.md has the protocol. One thread uses a connection at a time."""

import os
import socket
import struct

HEADER = struct.Struct("<HHIQQHHHH")
MAX = 4096
HELLO, OPEN, LOCK, UNLOCK, CANCEL, MEMORY, PUBLISH, RELEASE, CHANNEL, LOG, PROGRESS, RESULT, QUIT = range(1, 14)
END, ANSWER = 0x7FFF, 0x8000
STATUS = ["ok", "protocol error", "denied", "limit", "errno", "timeout", "deadlock", "conflict", "not ready", "not held",
          "no version in common", "gone"]
READ, WRITE, CREATE = 1, 2, 3
SHARED, EXCLUSIVE = 1, 2
FOREVER = 2**64 - 1


class RequestError(Exception):
    """A request that the broker refused: status is one of STATUS, errno is 0 or that of a system call."""

    def __init__(self, status, errno, text):
        super().__init__(f"{status}: {text}")
        self.status, self.errno = status, errno


class Broker:
    """A session, on the socket that this process has inherited or on a connected one."""

    def __init__(self, connection=None):
        self.socket = connection or socket.socket(fileno=int(os.environ["JAIL_IPC_FD"]))
        self.last = 0
        hello, _ = self.call(HELLO, b"jail-ipc", a=1, b=1)
        self.jail, self.pinned = hello["s"].decode(), bool(hello["b"] & 1)

    def call(self, kind, s=b"", t=b"", a=0, b=0, fd=None):
        """Sends a request and returns the answer and the fd that came with it, or None."""
        self.last = self.last % 0xFFFFFFFF + 1
        packet = HEADER.pack(kind, 0, self.last, a, b, len(s), len(t), fd is not None, 0) + s + t
        try:
            socket.send_fds(self.socket, [packet], [] if fd is None else [fd], socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the broker may have said why
        while True:
            answer, received = self.receive()
            if answer["kind"] == END or (answer["id"] == self.last and answer["kind"] == kind | ANSWER):
                break
            if received is not None:
                os.close(received)
        if answer["status"] or answer["kind"] == END:
            status = answer["status"]
            name = STATUS[status] if status < len(STATUS) else str(status)
            raise RequestError(name, answer["a"] if name == "errno" else 0, answer["s"].decode(errors="replace"))
        return answer, received

    def receive(self):
        try:
            packet, fds, _, _ = socket.recv_fds(self.socket, MAX, 1, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:  # said once, before what was sent earlier is given
            packet, fds, _, _ = socket.recv_fds(self.socket, MAX, 1, socket.MSG_CMSG_CLOEXEC)
        if len(packet) < HEADER.size:
            raise ConnectionResetError("the broker has closed the connection")
        kind, status, number, a, b, s, t, _, _ = HEADER.unpack_from(packet)
        text = packet[HEADER.size:]
        answer = {"kind": kind, "status": status, "id": number, "a": a, "b": b, "s": text[:s], "t": text[s:s + t]}
        return answer, fds[0] if fds else None

    def open(self, name, path="", access=READ):
        """Returns an fd."""
        return self.call(OPEN, name.encode(), os.fsencode(path), access)[1]

    def lock(self, name, mode=EXCLUSIVE, wait=FOREVER):
        """Waits for so many nanoseconds."""
        self.call(LOCK, name.encode(), a=mode, b=wait)

    def unlock(self, name):
        self.call(UNLOCK, name.encode())

    def memory(self, name, access=WRITE):
        """Returns a memfd and its size. The user's bytes begin at 4096."""
        answer, fd = self.call(MEMORY, name.encode(), a=access)
        return fd, answer["a"]

    def log(self, line, level=0):
        """Level is -4 for debug, 0 for information, 4 for a warning, 8 for an error."""
        self.call(LOG, line.encode(), a=level + 128)

    def progress(self, done, total=0, what=""):
        self.call(PROGRESS, what.encode(), a=done, b=total)

    def result(self, name, fd):
        """Hands a copy of fd to the launcher."""
        self.call(RESULT, name.encode(), fd=fd)

    def quit(self):
        self.call(QUIT)
        self.socket.close()
