"""A real file system whose reads take a second each, until it is let go. Run as a program, with its mount point and a file's size.

It speaks the kernel's FUSE protocol itself, and holds one file, ``fox.png``. A line on standard input lets all reads go; the end of it
unmounts. It needs the right to mount.
"""

import ctypes
import errno
import os
import signal
import stat
import struct
import sys
import threading
from contextlib import suppress

SECONDS = 1.0
MAGIC = b"\x89PNG\r\n\x1a\n"
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 15, 18, 25, 26, 36, 42
FOLDER, FILE = 1, 2
DIRECT = 1
"""Nothing of the file is kept in the page cache."""
UNMOUNT_AT_ONCE = 2


class SlowDisk:
    def __init__(self, device: int, size: int) -> None:
        self.device = device
        self.content = MAGIC + bytes(size - len(MAGIC))
        self.released = threading.Event()

    def serve(self) -> None:
        """Answer until it is unmounted; each read in a thread of its own."""
        with suppress(OSError):
            while request := os.read(self.device, 1 << 18):
                _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
                if opcode == READ:
                    threading.Thread(target=self.read, args=(unique, request[40:]), daemon=True).start()
                elif opcode not in {FORGET, BATCH_FORGET, INTERRUPT}:
                    self.reply(unique, *self.answer(opcode, node, request[40:]))

    def read(self, unique: int, asked: bytes) -> None:
        _, offset, size = struct.unpack_from("<QQI", asked)
        self.released.wait(SECONDS)
        with suppress(OSError):
            self.reply(unique, 0, self.content[offset : offset + size])

    def reply(self, unique: int, error: int, content: bytes) -> None:
        os.write(self.device, struct.pack("<IiQ", 16 + len(content), error, unique) + content)

    def answer(self, opcode: int, node: int, asked: bytes) -> tuple[int, bytes]:
        if opcode == LOOKUP and asked != b"fox.png\0":
            return -errno.ENOENT, b""
        answers = {
            INIT: struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 0, 64, 48, 1 << 17, 1, 32, 0, 0),  # the version, and no wish
            LOOKUP: struct.pack("<QQQQII", FILE, 0, 60, 60, 0, 0) + self.attributes(FILE),
            GETATTR: struct.pack("<QII", 60, 0, 0) + self.attributes(node),
            OPEN: struct.pack("<QII", 1, DIRECT, 0),
            RELEASE: b"",
            FLUSH: b"",
        }
        return (0, answers[opcode]) if opcode in answers else (-errno.ENOSYS, b"")

    def attributes(self, node: int) -> bytes:
        size, mode = (len(self.content), stat.S_IFREG | 0o444) if node == FILE else (0, stat.S_IFDIR | 0o555)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, 8, 0, 0, 0, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)


def main(place: str, size: int) -> None:
    system = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()}"
    if system.mount(b"slow", place.encode(), b"fuse", 0, options.encode()):
        sys.exit(os.strerror(ctypes.get_errno()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # a mount outlives its server
    disk = SlowDisk(device, size)
    threading.Thread(target=disk.serve, daemon=True).start()
    try:
        sys.stdout.write("mounted\n")
        sys.stdout.flush()
        if sys.stdin.readline():
            disk.released.set()
            sys.stdin.read()
    finally:
        disk.released.set()
        system.umount2(place.encode(), UNMOUNT_AT_ONCE)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
