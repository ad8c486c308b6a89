"""What a disk may hold after a power cut, from the records of record.c.

A store is recorded from a moment on at which all of it is durable (`Baseline`). `Disk` reads the records up to a
moment, knows which of them syncs have made durable, and builds a directory in which of the others a random choice has
come to the disk. Which choices are legal is said in docs/reliability.md ("The rules of the disk"):

- "ordered" (ext4 with data=ordered, XFS): names, sizes, extended attributes, truncations and new extents come to the
  disk in the order in which they were made, up to a moment M; a sync of a file brings M at least to the file's last
  such change. Blocks that had a place on the disk before may have been overwritten, each by any later content,
  whatever M is. A new block is there with its data or not at all.
- "loose" (Btrfs and stricter): names come to the disk by any choice in which no name skips an earlier change of itself
  and a renaming is one step; the rest of each file has an M of its own. A sync of a file brings its names along.
"""
import collections
import mmap
import os
import stat
import struct

BLOCK = 4096
HEADER = struct.Struct("<IHHIIQQQ")
HEADER_BYTES = HEADER.size
MAGIC = 0x42524543
ROOT_INODE = 1
(CREATE, WRITE, TRUNCATE, PUNCH, SYNC_BEGIN, SYNC_END, SYNCFS_BEGIN, SYNCFS_END, RENAME, EXCHANGE, LINK, UNLINK, MKDIR,
 SYMLINK, XATTR, UNXATTR, CHMOD) = range(1, 18)
NOTE, UNKNOWN = 50, 99


class Record:
    __slots__ = ("seq", "op", "inode", "a", "b", "path", "other", "data")


def read_log(path):
    """All records; the sequence number of one is where it ends in the file."""
    with open(path, "rb") as f:
        log = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    at, end = 4096, len(log)
    while at + HEADER_BYTES <= end:
        r = Record()
        magic, r.op, n_path, n_other, n_data, r.inode, r.a, r.b = HEADER.unpack_from(log, at)
        assert magic == MAGIC, f"no record at {at}"
        at += HEADER_BYTES
        r.path = log[at:at + n_path].decode("utf-8", "surrogateescape")
        r.other = log[at + n_path:at + n_path + n_other].decode("utf-8", "surrogateescape")
        at += n_path + n_other
        r.data = (log, at, n_data)
        at += n_data
        r.seq = at
        assert at <= end, "the last record is torn"
        yield r


def append_note(path, text):
    """What a client was told, in its place among the records."""
    data = text.encode()
    with open(path, "ab", buffering=0) as f:
        f.write(HEADER.pack(MAGIC, NOTE, 0, 0, len(data), 0, 0, 0) + data)


class Inode:
    """A file, directory or symbolic link: as it was at the start, and what was done to it since."""

    def __init__(self, kind, mode, source=None, target=None):
        self.kind, self.mode, self.source, self.target = kind, mode, source, target
        self.size, self.xattrs, self.blocks = 0, {}, None
        self.names = {}  # a directory's entries on the disk at least
        self.view = {}   # its entries as processes see them
        self.ops = []
        self.view_size, self.placed = 0, None
        self.synced = 0  # the start of the last sync that succeeded
        self.meta = []   # (seq, of data only) of changes that its sync must bring to the disk

    def extents(self):
        """Blocks that hold data at the start."""
        if self.blocks is None:
            self.blocks = set()
            if self.source and self.kind == "file":
                with open(self.source, "rb") as f:
                    for begin, end in data_runs(f.fileno(), self.size):
                        self.blocks.update(range(begin // BLOCK, (end + BLOCK - 1) // BLOCK))
        return self.blocks

    def placed_blocks(self):
        """Blocks that have a place on the disk, or will have one: as processes see the file."""
        if self.placed is None:
            self.placed = set(self.extents())
        return self.placed


def data_runs(fd, size):
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            return
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size)
        yield begin, at


def copy_file(source, target, mode):
    """A copy with the same holes: `cp` may make holes of zeros."""
    with open(source, "rb") as a, open(target, "wb") as b:
        size = os.fstat(a.fileno()).st_size
        for begin, end in data_runs(a.fileno(), size):
            os.lseek(a.fileno(), begin, os.SEEK_SET)
            at = begin
            while at < end:
                at += os.pwrite(b.fileno(), os.pread(a.fileno(), min(end - at, 1 << 22), at), at)
        b.truncate(size)
    os.chmod(target, mode)
    for name in os.listxattr(source):
        os.setxattr(target, name, os.getxattr(source, name))


class Baseline:
    """A copy of a store at rest, and its inodes by the numbers that they have in the store itself."""

    def __init__(self, store, copy):
        self.inodes, self.copy = {}, copy
        os.makedirs(copy)
        self.root = self._walk(store, copy)

    def moved(self, copy):
        """The same, after its copy was moved."""
        for inode in self.inodes.values():
            if inode.source:
                inode.source = copy + inode.source[len(self.copy):]
        self.copy = copy
        return self

    def _walk(self, path, copy):
        st = os.lstat(path)
        made = self.inodes.get(st.st_ino)
        if made:
            return made
        mode = stat.S_IMODE(st.st_mode)
        if stat.S_ISDIR(st.st_mode):
            inode = Inode("dir", mode)
            os.makedirs(copy, exist_ok=True)
            for name in sorted(os.listdir(path)):
                child = self._walk(f"{path}/{name}", f"{copy}/{name}")
                if child:
                    inode.names[name] = child
            inode.view = dict(inode.names)
            inode.xattrs = {n: os.getxattr(path, n) for n in os.listxattr(path)}
        elif stat.S_ISLNK(st.st_mode):
            inode = Inode("link", mode, target=os.readlink(path))
        elif stat.S_ISREG(st.st_mode):
            copy_file(path, copy, mode)
            inode = Inode("file", mode, source=copy)
            inode.size = inode.view_size = st.st_size
            inode.xattrs = {n: os.getxattr(path, n) for n in os.listxattr(path)}
        else:
            return None  # a socket: nothing of it is on the disk
        self.inodes[st.st_ino] = inode
        return inode


class Disk:
    """The state of the world after some of the records."""

    def __init__(self, baseline):
        self.root, self.numbers = baseline.root, dict(baseline.inodes)
        self.names = []  # changes of names not on the disk for certain: (seq, effects)
        self.required = 0
        self.seq = 0
        self.begun = {}
        self.notes = []
        self.unseen = collections.Counter()

    def _at(self, path):
        """The directory and the last name of a path, as processes see it."""
        inode, parts = self.root, os.path.normpath(path).split("/")  # no name of a directory is a link
        for part in parts[:-1]:
            inode = inode.view.get(part) if inode else None
        return inode, parts[-1]

    def _name(self, seq, *effects):
        """Names change at once for processes: (directory, name, inode or None), ..."""
        for directory, name, inode in effects:
            if inode is None:
                directory.view.pop(name, None)
            else:
                directory.view[name] = inode
                inode.meta.append((seq, False))
            directory.meta.append((seq, False))
        self.names.append((seq, effects))

    def feed(self, r):
        self.seq = r.seq
        if r.op == NOTE:
            self.notes.append(bytes(r.data[0][r.data[1]:r.data[1] + r.data[2]]).decode())
        elif r.op in (CREATE, MKDIR, SYMLINK):
            kind = {CREATE: "file", MKDIR: "dir", SYMLINK: "link"}[r.op]
            inode = Inode(kind, r.a, target=r.other or None)
            directory, name = self._at(r.path)
            if directory is None or directory.kind == "link":
                self._unknown(r.path)
                return
            self.numbers[r.inode] = inode
            self._name(r.seq, (directory, name, inode))
        elif r.op in (RENAME, EXCHANGE, LINK, UNLINK):
            self._change_names(r)
        elif r.op in (SYNC_BEGIN, SYNCFS_BEGIN):
            self.begun[r.a] = (r.seq, r.b)
        elif r.op in (SYNC_END, SYNCFS_END):
            self._synced(r)
        elif r.op == UNKNOWN:
            self.unseen[f"operation {r.a}"] += 1
        else:
            self._change_inode(r)

    def _unknown(self, path):
        if not path.startswith("run/") and "/pg_dynshmem/" not in path:  # sockets, shared memory
            self.unseen[f"what made {path}"] += 1

    def _change_names(self, r):
        directory, name = self._at(r.path)
        inode = directory and directory.view.get(name)
        if inode is None:
            self._unknown(r.path)
            return
        if r.op == UNLINK:
            self._name(r.seq, (directory, name, None))
            return
        other, to = self._at(r.other)
        if other is None:
            self._unknown(r.other)
            return
        if r.op == LINK:
            self._name(r.seq, (other, to, inode))
        elif r.op == RENAME:
            if other.view.get(to) is not inode:
                self._name(r.seq, (directory, name, None), (other, to, inode))
        else:
            self._name(r.seq, (directory, name, other.view[to]), (other, to, inode))

    def _change_inode(self, r):
        inode = self.numbers.get(r.inode)
        if inode is None or inode.kind == "link":
            return  # not of the store
        inode.ops.append(r)
        data_only = False
        if r.op == WRITE:
            end, placed = r.a + r.data[2], inode.placed_blocks()
            touched = range(r.a // BLOCK, (end + BLOCK - 1) // BLOCK)
            if end <= inode.view_size and all(b in placed for b in touched):
                return  # in place: a sync has nothing to bring but the data
            placed.update(touched)
            inode.view_size = max(inode.view_size, end)
            data_only = True
        elif r.op in (TRUNCATE, PUNCH):
            data_only = True
            end = None if r.op == TRUNCATE else (r.a + r.b) // BLOCK
            first = (r.a + BLOCK - 1) // BLOCK
            inode.placed = {b for b in inode.placed_blocks() if b < first or (end is not None and b >= end)}
            if r.op == TRUNCATE:
                inode.view_size = r.a
        inode.meta.append((r.seq, data_only))

    def _synced(self, r):
        begin, data_only = self.begun.pop(r.a)
        if r.op == SYNCFS_END:
            for inode in set(self.numbers.values()):
                inode.synced = max(inode.synced, begin)
            self.required = max(self.required, begin)
            return
        inode = self.numbers.get(r.inode)
        if inode is None:
            return
        inode.synced = max(inode.synced, begin)
        for seq, of_data in inode.meta:
            if seq < begin and (of_data or not data_only):
                self.required = max(self.required, seq)

    # ---- building ----

    def build(self, target, chance, style):
        """Make the directory `target` as the disk may hold it, had the power failed now."""
        ordered = style != "loose"
        latest = chance.choice([self.required, self.seq, chance.randint(self.required, self.seq)])
        cut = Cut(self, chance, latest, chance.choice([0.0, 1.0, 0.5, None]))
        if ordered:
            kept = [effects for seq, effects in self.names if seq <= latest]
        else:
            kept = self._loose_names(chance)
        entries = {}
        for effects in kept:
            for directory, name, inode in effects:
                names = entries.setdefault(directory, dict(directory.names))
                if inode is None:
                    names.pop(name, None)
                else:
                    names[name] = inode
        cut.loose = not ordered
        cut.write_dir(self.root, target, entries)
        return cut

    def _loose_names(self, chance):
        """A choice of name changes: what must be there, some of the rest, and what those need to be there."""
        must = {i for i, (seq, effects) in enumerate(self.names)
                if any(seq < d.synced or (n and seq < n.synced) for d, _, n in effects)}
        share = chance.choice([0.0, 0.2, 0.8, 1.0])
        wanted = {i for i in range(len(self.names)) if i in must or chance.random() < share}
        needs, chosen = set(), []
        for i in range(len(self.names) - 1, -1, -1):
            effects = self.names[i][1]
            # the same names, and the directories and files that the names are of
            keys = [key for d, name, inode in effects for key in ((d, name), inode, d) if key]
            touched = {(d, name) for d, name, _ in effects} | {n for _, _, n in effects if n}
            if i in wanted or touched & needs:
                chosen.append(effects)
                needs.update(keys)
        return chosen[::-1]


class Cut:
    """One choice of what has come to the disk."""

    def __init__(self, disk, chance, latest, share):
        self.disk, self.chance, self.latest, self.share = disk, chance, latest, share
        self.loose = False
        self.made = {}
        self.lost = collections.Counter()

    def write_dir(self, inode, target, entries):
        os.mkdir(target)
        for name, child in sorted(entries.get(inode, inode.names).items()):
            path = f"{target}/{name}"
            if child.kind == "dir":
                self.write_dir(child, path, entries)
            elif child.kind == "link":
                os.symlink(child.target, path)
            elif child in self.made:
                os.link(self.made[child], path)
            else:
                self.write_file(child, path)
                self.made[child] = path
        for name, value in self._xattrs(inode).items():
            os.setxattr(target, name, value)
        os.chmod(target, self._mode(inode))

    def _latest(self, inode):
        """Up to where the changes of an inode itself are on the disk."""
        if not self.loose:
            return self.latest
        return self.chance.choice([inode.synced, self.disk.seq,
                                   self.chance.randint(inode.synced, self.disk.seq)])

    def _xattrs(self, inode):
        xattrs = dict(inode.xattrs)
        for r in inode.ops:
            if r.seq > self.latest and not self.loose:
                break
            if r.op == XATTR:
                xattrs[r.path] = bytes(r.data[0][r.data[1]:r.data[1] + r.data[2]])
            elif r.op == UNXATTR:
                xattrs.pop(r.path, None)
        return xattrs

    def _mode(self, inode):
        return next((r.a for r in reversed(inode.ops) if r.op == CHMOD), inode.mode)

    def write_file(self, inode, path):
        if not inode.ops and inode.source:
            if "/layers/" in path and "/data/" in path:
                os.link(inode.source, path)  # never written again
            else:
                copy_file(inode.source, path, inode.mode)
            return
        size, blocks, xattrs, mode = self._content(inode)
        with open(path, "wb") as f:
            for number in sorted(blocks):
                os.pwrite(f.fileno(), blocks[number], number * BLOCK)
            f.truncate(size)
        for name, value in xattrs.items():
            os.setxattr(path, name, value)
        os.chmod(path, mode)

    def _content(self, inode):
        latest = self._latest(inode)
        share = self.chance.choice([0.0, 0.5, 1.0]) if self.share is None else self.share
        source = open(inode.source, "rb") if inode.source else None
        old = {}
        if source:
            old = {b: os.pread(source.fileno(), BLOCK, b * BLOCK).ljust(BLOCK, b"\0") for b in inode.extents()}
            source.close()
        seen, disk = dict(old), old  # as processes see it; as the disk has it
        size, barrier, xattrs, mode = inode.size, None, dict(inode.xattrs), inode.mode
        for r in inode.ops:
            there = r.seq <= latest or r.seq < inode.synced
            if r.op == WRITE:
                end = r.a + r.data[2]
                for number, content in merged(seen, r):
                    seen[number] = content
                    new = number not in disk
                    if r.seq < inode.synced:
                        disk[number] = content
                    elif (new and not there) or (barrier is not None and number * BLOCK >= barrier):
                        self.lost["new blocks"] += 1
                    elif self.chance.random() < share:
                        disk[number] = content
                    else:
                        self.lost["blocks"] += 1
                if end > size and (r.seq < inode.synced or (there and self.chance.random() < max(share, 0.3))):
                    size = end
            elif r.op in (TRUNCATE, PUNCH):
                begin, end = (r.a, None) if r.op == TRUNCATE else (r.a, r.a + r.b)
                clear(seen, begin, end)
                if there:
                    clear(disk, begin, end)
                    size = r.a if r.op == TRUNCATE else size
                else:
                    self.lost["truncations"] += 1
                    barrier = begin if barrier is None else min(barrier, begin)
            elif there and r.op == XATTR:
                xattrs[r.path] = bytes(r.data[0][r.data[1]:r.data[1] + r.data[2]])
            elif there and r.op == UNXATTR:
                xattrs.pop(r.path, None)
            elif there and r.op == CHMOD:
                mode = r.a
        return size, {n: c for n, c in disk.items() if n * BLOCK < size}, xattrs, mode


def merged(seen, r):
    """The blocks that a write touches, with what they hold after it."""
    log, begin, length = r.data
    at, end = r.a, r.a + length
    while at < end:
        number, inside = divmod(at, BLOCK)
        part = min(BLOCK - inside, end - at)
        piece = log[begin + at - r.a:begin + at - r.a + part]
        if part < BLOCK:
            before = seen.get(number, b"\0" * BLOCK)
            piece = before[:inside] + piece + before[inside + part:]
        yield number, piece
        at += part


def clear(blocks, begin, end):
    """What a truncation or a punched hole takes."""
    first = (begin + BLOCK - 1) // BLOCK
    last = None if end is None else end // BLOCK
    for number in [n for n in blocks if n >= first and (last is None or n < last)]:
        del blocks[number]
    number, inside = divmod(begin, BLOCK)
    if inside and number in blocks:
        blocks[number] = blocks[number][:inside] + b"\0" * (BLOCK - inside)


def differences(disk, store, ignore):
    """What the recorder did not see: names, sizes and bytes that processes see, against the directory itself."""
    found = []

    def look(inode, path, name):
        if ignore(name):
            return
        if not os.path.lexists(path):
            found.append(f"{name} is not there")
        elif inode.kind == "dir":
            real = {n for n in os.listdir(path) if not ignore(f"{name}/{n}")
                    and not stat.S_ISSOCK(os.lstat(f"{path}/{n}").st_mode)}
            known = {n for n in inode.view if not ignore(f"{name}/{n}")}
            found.extend(f"{name}/{n} was not recorded" for n in sorted(real - known))
            for child in sorted(inode.view):
                look(inode.view[child], f"{path}/{child}", f"{name}/{child}")
        elif inode.kind == "file" and inode.ops:
            everything = Cut(disk, None, disk.seq, 1.0)
            everything.chance = Always()
            size, blocks, _, _ = everything._content(inode)  # pylint: disable=protected-access
            with open(path, "rb") as f:
                if os.fstat(f.fileno()).st_size != size:
                    found.append(f"{name} has {os.fstat(f.fileno()).st_size} bytes, {size} were recorded")
                    return
                for number in range((size + BLOCK - 1) // BLOCK):
                    real = os.pread(f.fileno(), BLOCK, number * BLOCK)
                    if real != blocks.get(number, b"\0" * BLOCK)[:len(real)]:
                        found.append(f"{name}: block {number} differs")
                        return
    look(disk.root, store, "")
    return found


class Always:
    """Chance that lets everything come to the disk."""
    @staticmethod
    def random():
        return 0.0

    @staticmethod
    def choice(options):
        return options[-1]
