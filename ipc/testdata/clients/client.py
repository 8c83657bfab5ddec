# What a payload in Python does with the broker; TestClientsInOtherLanguages looks at what comes of it.
import errno
import mmap
import os

import jail_ipc


def refused(status, call, *args):
    try:
        call(*args)
    except jail_ipc.RequestError as e:
        assert e.status == status, e
        return e
    raise AssertionError(f"not {status}")


b = jail_ipc.Broker()
print(b.jail, int(b.pinned))
fd = b.open("root", "file")
text = os.read(fd, 100).decode()
os.close(fd)
refused("denied", b.open, "root", "file", jail_ipc.WRITE)
assert refused("errno", b.open, "root", "absent").errno == errno.ENOENT
b.lock("mine")
refused("deadlock", b.lock, "mine")
refused("timeout", b.lock, "taken", jail_ipc.EXCLUSIVE, 1000000)
b.unlock("mine")
fd, size = b.memory("m")
m = mmap.mmap(fd, 4096 + size)
m[4096:4096 + len(text)] = text.encode()
b.log(text, 4)
b.progress(1, 2, "half")
b.result("out", fd)
b.quit()
