"""Calls that fail on demand in boughd, its tools and its computes: the page of test/fault/fault.h."""
import contextlib
import errno
import mmap
import os
import struct

import pytest

import harness as h

CALLS = ("open", "read", "write", "sync", "rename", "link", "unlink", "mkdir", "truncate", "allocate", "mmap", "xattr",
         "list", "malloc")
NONE, COUNT, ONCE, ON, SHORT = range(5)
HEAD = struct.Struct("<IIiIqqq32s32s256sIi512s")


def mask(*calls):
    return sum(1 << CALLS.index(c) for c in calls)


def number_of(error):
    return 0 if error == "SHORT" else getattr(errno, error)


class Faults:
    """The page, its library, and what it did."""

    def __init__(self, directory):
        if h.IS_SANITIZED:
            pytest.skip("a sanitizer's library must come first (dev/sanitized)")
        self.file = os.path.join(directory, "faults")
        self.library = os.path.join(directory, "libbough_fault.so")
        with open(self.file, "wb") as f:
            f.truncate(4096)
        os.chmod(self.file, 0o666)
        with open(os.path.join(h.BUILD, "test/fault/libbough_fault.so"), "rb") as a, open(self.library, "wb") as b:
            b.write(a.read())
        os.chmod(self.library, 0o755)
        with open(self.file, "r+b") as f:
            self.page = mmap.mmap(f.fileno(), 4096)

    def env(self):
        return {"BOUGH_FAULT": self.file, "LD_PRELOAD": self.library}

    def up(self, server, **kw):
        """Start a server whose calls, and those of all that it starts, can fail; commands are not touched."""
        ours = self.env() | {"BOUGH_PRELOAD_LAST": self.library, "BOUGH_PRELOAD_TOOLS": self.library}
        server.env |= ours
        try:
            server.up(**kw)
        finally:
            for name in ours:
                del server.env[name]
        return server

    def arm(self, mode, calls, error=0, nth=1, program="", thread="", path=""):
        self.disarm()
        HEAD.pack_into(self.page, 0, NONE, calls, error, 0, nth, 0, 0, program.encode(), thread.encode(),
                       path.encode(), 0, 0, b"")
        struct.pack_into("<I", self.page, 0, mode)

    def disarm(self):
        struct.pack_into("<I", self.page, 0, NONE)

    @property
    def seen(self):
        return struct.unpack_from("<q", self.page, 24)[0]

    @property
    def fired(self):
        return struct.unpack_from("<q", self.page, 32)[0]

    @property
    def pid(self):
        """Of the process whose call failed first."""
        return HEAD.unpack_from(self.page, 0)[11]

    def what(self):
        """The call that failed first, for messages."""
        fields = HEAD.unpack_from(self.page, 0)
        return f"{CALLS[fields[10]]} of {fields[12].split(bytes(1))[0].decode()!r} in process {fields[11]}"

    @contextlib.contextmanager
    def failing(self, call, error, nth=1, on=False, **where):
        mode = SHORT if error == "SHORT" else ON if on else ONCE
        self.arm(mode, mask(call), number_of(error), nth, **where)
        try:
            yield self
        finally:
            self.disarm()


class Served:
    """A server in which calls can fail, and a project on it."""

    def __init__(self, directory, pg18):
        self.fault = Faults(directory)
        self.server = h.Bough(os.path.join(directory, "s"), pg18)
        os.makedirs(self.server.dir, mode=0o755)
        self.start()
        self.pid = self.server.pid()
        self.p = self.server.project("p")

    def start(self):
        self.fault.up(self.server)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def end(self):
        self.fault.disarm()
        self.server.destroy()
        # what a failure left counted is waited for, in vain
        assert "threads still ran at the end" not in self.server.log(), "not all that had ended had said so"


@contextlib.contextmanager
def served(world, session_dir, name, pg18):
    """A world, which is a Served, in a directory of that name."""
    directory = os.path.join(session_dir, name)
    os.makedirs(directory, mode=0o755)
    found = world(directory, pg18)
    try:
        yield found
    finally:
        found.end()
