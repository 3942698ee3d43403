"""What calls do in a directory, one line each: calls.py DIR, as root. The same lines on two file systems mean that a program sees no
difference. Nothing that is printed depends on time, on numbers of inodes or on the order of a listing; DIR is left as it was found."""
import ctypes
import errno
import fcntl
import hashlib
import itertools
import mmap
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
import traceback

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
MIB = 1 << 20


def say(what, value):
    print(f"{what}: {value}", flush=True)


def told(call, *arguments, **options):
    """What a call returns, or the name of its error."""
    try:
        return call(*arguments, **options)
    except OSError as error:
        return errno.errorcode[error.errno]


def checked(returned):
    if returned != 0:
        raise OSError(ctypes.get_errno(), "")


def by(uid, call, groups=()):
    """The same in a process of another user, of a group of that number."""
    ours, theirs = os.pipe()
    if os.fork() == 0:
        os.setgroups(groups)
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        os.write(theirs, repr(told(call)).encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as answer:
        value = answer.read()
    os.wait()
    return value


def make(name, data=b"", mode=0o644):
    file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)
    os.write(file, data)
    os.close(file)


def mode(name):
    return oct(os.lstat(name).st_mode)


def write(name, data=b"x"):
    file = os.open(name, os.O_WRONLY)
    try:
        return os.write(file, data)
    finally:
        os.close(file)


def times():
    make("f")
    for pair in [(1234567890123456789, 987654321987654321), (-1500000001, -1), (0, 1)]:
        os.utime("f", ns=pair)
        found = os.stat("f")
        say("times set", (found.st_atime_ns, found.st_mtime_ns))
    os.symlink("f", "link")
    os.utime("link", ns=(5, 6), follow_symlinks=False)
    say("times of a link", os.lstat("link").st_mtime_ns)
    os.mkdir("d")

    def moved(which, look, act):
        before = getattr(os.stat(look), which)
        time.sleep(0.02)
        act()
        return getattr(os.stat(look), which) > before

    say("ctime of chmod", moved("st_ctime_ns", "f", lambda: os.chmod("f", 0o600)))
    say("ctime of link", moved("st_ctime_ns", "f", lambda: os.link("f", "g")))
    say("ctime of rename", moved("st_ctime_ns", "f", lambda: os.rename("g", "h")))
    say("mtime of write", moved("st_mtime_ns", "f", lambda: write("f")))
    say("mtime of truncate", moved("st_mtime_ns", "f", lambda: os.truncate("f", 0)))
    say("mtime of a directory, create", moved("st_mtime_ns", "d", lambda: make("d/x")))
    say("mtime of a directory, unlink", moved("st_mtime_ns", "d", lambda: os.unlink("d/x")))


def modes():
    os.chmod(".", 0o777)
    make("f")
    for bits in [0o6755, 0o7777]:
        os.chmod("f", bits)
        say("bits kept", mode("f"))
    for who, call in [(1001, lambda: write("f")), (1001, lambda: os.truncate("f", 0)), (0, lambda: write("f"))]:
        os.chmod("f", 0o6777)
        say(f"bits after a change by {who}", (by(who, call), mode("f")))
    for bits in [0o6755, 0o2644]:
        os.chmod("f", bits)
        os.chown("f", 5, bits)
        say("bits after chown", mode("f"))
    os.chown("f", 1001, 1001)
    os.chmod("f", 0o644)
    say("chmod by the owner", (by(1001, lambda: os.chmod("f", 0o4755)), mode("f")))
    say("chmod by another", by(1002, lambda: os.chmod("f", 0o777)))
    for uid, gid in [(1002, -1), (1001, -1), (-1, 2000), (-1, 3000)]:
        say(f"chown by the owner to {uid} {gid}", (by(1001, lambda: os.chown("f", uid, gid), [2000]), os.stat("f").st_gid, mode("f")))
    os.chmod("f", 0o666)
    say("times of now by who may write", by(1002, lambda: os.utime("f")))
    say("other times by who may write", by(1002, lambda: os.utime("f", (1, 1))))
    os.chmod("f", 0o640)
    say("read by another", by(1002, lambda: open("f").read()))
    say("read by a member", by(1002, lambda: open("f").read(), [5, 2000]))
    os.mkdir("group")
    os.chown("group", 0, 2000)
    os.chmod("group", 0o2777)
    by(1001, lambda: (make("group/f"), os.mkdir("group/d")))
    say("in a set-group-id directory", [(os.stat(n).st_gid, mode(n)) for n in ("group/f", "group/d")])
    os.mkdir("sticky")
    os.chmod("sticky", 0o1777)
    make("sticky/root")
    say("sticky", (by(1001, lambda: os.unlink("sticky/root")), by(1001, lambda: os.rename("sticky/root", "sticky/x"))))
    say("sticky, his own", by(1001, lambda: (make("sticky/own"), os.unlink("sticky/own"))))
    os.umask(0o027)
    made = [make("masked"), os.mkdir("masked d"), os.mkfifo("masked p")]
    os.umask(0o022)
    say("umask", [mode(n) for n in ("masked", "masked d", "masked p")][: len(made)])


def kinds():
    numbers = {stat.S_IFIFO: 0, stat.S_IFSOCK: 0, stat.S_IFCHR: os.makedev(1, 3), stat.S_IFBLK: os.makedev(259, 70000), stat.S_IFREG: 0}
    for kind, number in numbers.items():
        name = oct(kind)
        made = told(os.mknod, name, kind | 0o640, number)
        say(f"mknod {name}", (made, mode(name), os.lstat(name).st_rdev, os.lstat(name).st_nlink))
    say("a device by a user", by(1001, lambda: os.mknod("x", stat.S_IFCHR | 0o600, os.makedev(1, 3))))
    if os.fork() == 0:
        with open(oct(stat.S_IFIFO), "w") as pipe:
            pipe.write("through")
        os._exit(0)
    with open(oct(stat.S_IFIFO)) as pipe:
        say("through a pipe", pipe.read())
    os.wait()
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        say("through a socket", told(client.connect, "socket"))


def links():
    make("f")
    for n in range(5):
        os.link("f", f"f{n}")
    os.unlink("f")
    say("links", os.stat("f0").st_nlink)
    os.makedirs("d/a")
    os.makedirs("d/b")
    say("links of a directory", os.stat("d").st_nlink)
    os.symlink("f0", "link")
    say("link of a link", (told(os.link, "link", "again", follow_symlinks=False), os.lstat("again").st_nlink))
    say("link of a directory", told(os.link, "d", "e"))
    for length in [0, 4095, 4096]:
        say(f"a link to {length} bytes", told(os.symlink, "s" * length, f"long {length}"))


MAKERS = {
    "nothing": lambda n: None,
    "file": make,
    "hard link": lambda n: (make(n), os.link(n, n + ".second")),
    "directory": os.mkdir,
    "full directory": lambda n: (os.mkdir(n), make(n + "/f")),
    "link": lambda n: os.symlink("nowhere", n),
    "link to a directory": lambda n: (os.mkdir(n + ".d"), os.symlink(n + ".d", n)),
    "pipe": os.mkfifo,
    "socket": lambda n: os.mknod(n, stat.S_IFSOCK | 0o600),
    "device": lambda n: os.mknod(n, stat.S_IFCHR | 0o600, 259),
}


def all_below():
    found = []
    for dir, dirs, files in os.walk("."):
        for path in (os.path.join(dir, name) for name in dirs + files):
            status = os.lstat(path)
            found.append((path, oct(stat.S_IFMT(status.st_mode)), status.st_nlink))
    return sorted(found)


def empty():
    for name in os.listdir("."):
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        else:
            os.unlink(name)


def renamed(flags):
    return told(lambda: checked(libc.renameat2(-100, b"A", -100, b"B", flags)))


def renames():
    for one, other, flags in itertools.product(MAKERS, MAKERS, [0, 1, 2]):
        MAKERS[one]("A")
        MAKERS[other]("B")
        say(f"rename {one} over {other}, flags {flags}", (renamed(flags), all_below()))
        empty()
    make("A")
    say("rename with a whiteout", renamed(4))
    os.makedirs("D/x")
    for old, new in [("A", "A"), ("A", "B/"), ("D", "D/y"), ("D/..", "E"), ("D/.", "E"), ("D/", "E/"), ("E", "E/x/z")]:
        say(f"rename {old} {new}", told(os.rename, old, new))


def paths():
    say("a path of almost 4096", told(os.makedirs, "/".join(["d" * 200] * 18)))
    os.mkdir("p")
    at = os.open("p", os.O_RDONLY)
    for _ in range(60):
        os.mkdir("q" * 250, dir_fd=at)
        below = os.open("q" * 250, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    say("deeper than any path", os.listdir(at))
    os.close(at)
    for path in ["x/" * 2100, "./" * 2047 + "p", "n" * 255, "n" * 256]:
        say(f"a path of {len(path)}", told(lambda: os.path.isdir(path) or make(path)))
    os.makedirs("a/b")
    os.mkdir("c")
    at = os.open("a/b", os.O_RDONLY)
    os.rename("a/b", "c/d")
    up = os.open("..", os.O_RDONLY, dir_fd=at)
    say(".. of a directory that was moved", (sorted(os.listdir(up)), os.path.samestat(os.fstat(up), os.stat("c"))))
    os.rmdir("c/d")
    made = told(os.open, "x", os.O_CREAT | os.O_WRONLY, dir_fd=at)
    say("a directory that was removed", (os.listdir(at), os.fstat(at).st_nlink, made))
    for call, name in [(os.rmdir, "c/."), (os.rmdir, "a/.."), (os.unlink, "c"), (os.rmdir, "n" * 255)]:
        say(f"{call.__name__} {name[:4]}", told(call, name))


class Entry(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_ulong), ("off", ctypes.c_long), ("len", ctypes.c_ushort), ("kind", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]


def listings():
    """A listing goes on while entries come and go, and again from a place that was kept."""
    os.mkdir("d")
    for n in range(2000):
        make(f"d/{n}")
    dir = ctypes.c_void_p(libc.opendir(b"d"))

    def name():
        entry = libc.readdir(dir)
        return entry and ctypes.cast(entry, ctypes.POINTER(Entry)).contents.name.decode()

    seen, places = [], []
    for _ in range(700):
        places.append(libc.telldir(dir))
        seen.append(name())
    gone = set(map(str, range(0, 2000, 7)))
    for number in gone:
        os.unlink(f"d/{number}")
    for n in range(300):
        make(f"d/new {n}")
    seen += iter(name, None)
    stay = [str(n) for n in range(2000) if str(n) not in gone]
    say("each once", all(seen.count(n) == 1 for n in stay) and len(seen) == len(set(seen)))
    libc.seekdir(dir, ctypes.c_long(places[400]))
    again = [n for n in iter(name, None) if n in stay]
    say("from a place that was kept", again == [n for n in seen[400:] if n in stay])
    libc.rewinddir(dir)
    say("from the beginning", sorted(iter(name, None)) == sorted([".", "..", *os.listdir("d")]))
    libc.closedir(dir)


def attributes():
    make("f")
    os.symlink("f", "link")
    os.mkfifo("pipe")
    for space in ["user.", "trusted.", "security.", "system.", "other."]:
        say(f"attribute {space}", (told(os.setxattr, "f", space + "a", b"v"), told(os.getxattr, "f", space + "a")))
    say("listed", (sorted(os.listxattr("f")), by(1001, lambda: sorted(os.listxattr("f")))))
    say("read by another", by(1001, lambda: os.getxattr("f", "trusted.a")))
    say("set by another", by(1001, lambda: os.setxattr("f", "user.q", b"")))
    for name in ["user.a", "trusted.a"]:
        say(f"{name} of a link", told(os.setxattr, "link", name, b"v", follow_symlinks=False))
    say("of a pipe", told(os.setxattr, "pipe", "user.a", b"v"))
    say("made", (told(os.setxattr, "f", "user.a", b"1", os.XATTR_CREATE), told(os.setxattr, "f", "user.b", b"1", os.XATTR_REPLACE)))
    say("removed", (told(os.removexattr, "f", "user.b"), told(os.removexattr, "f", "user.a"), told(os.getxattr, "f", "user.a")))
    say("empty", (told(os.setxattr, "f", "user.e", b""), told(os.getxattr, "f", "user.e"), told(os.setxattr, "f", "user.", b"")))
    big = bytes(range(256)) * 256
    say("a value of 64 KiB", told(os.setxattr, "f", "user.big", big))
    say("a value of more", told(os.setxattr, "f", "user.big", b"z" * 65537))
    say("the value of 64 KiB again", told(lambda: os.getxattr("f", "user.big") == big))
    say("a name of 255 and of 256", (told(os.setxattr, "f", "user." + "n" * 250, b""), told(os.setxattr, "f", "user." + "n" * 251, b"")))
    short = ctypes.create_string_buffer(2)
    make("g")
    os.setxattr("g", "user.a", b"abc")
    for what, returned in [("a value", libc.getxattr(b"g", b"user.a", short, 2)), ("the names", libc.listxattr(b"g", short, 2))]:
        say(f"{what} into too little room", returned if returned >= 0 else errno.errorcode[ctypes.get_errno()])
    say("30,000 bytes five times", [told(os.setxattr, "g", f"user.{n}", b"z" * 30000) for n in range(5)])
    os.setxattr("f", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
    write("f")
    say("a capability after a write", told(os.getxattr, "f", "security.capability"))


def shell(text):
    done = subprocess.run(text, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return (done.returncode, done.stdout)


def lists():
    make("f", b"in it", 0o600)
    say("a list", shell("setfacl -m u:1001:r,g:2000:rw,m::rw f && getfacl -cn f"))
    say("read by whom it names", by(1001, lambda: open("f").read()))
    say("written by him", by(1001, lambda: open("f", "r+").read()))
    say("written by the group that it names", by(1003, lambda: open("f", "r+").read(), [2000]))
    say("read by others", by(1004, lambda: open("f").read()))
    os.chmod("f", 0o640)
    say("after chmod", shell("getfacl -cn f"))
    say("what the mask takes", by(1003, lambda: open("f", "r+").read(), [2000]))
    os.mkdir("d")
    say("inherited", shell("setfacl -d -m u:1001:rwx,g::rx,o::- d; umask 077; touch d/f; mkdir d/d; getfacl -cn d/f d/d"))
    say("taken away", shell("setfacl -b d f; getfacl -cn d f; stat -c %a d f"))
    make("g")
    os.mkdir("s")
    # The bit stays for a member only, in however many groups he is.
    many = [*range(3000, 3100), 2000]
    for name, bits in [("g", 0o2750), ("s", 0o2770)]:
        for change in ["-m u:1003:rwx", "-dm u:1003:rwx", "-b"]:
            found = []
            for groups in [[], [2000], many, many[:-1]]:
                os.chown(name, 1001, 2000)
                shell(f"setfacl -b -m u:1004:r {name}")
                os.chmod(name, bits)
                found.append((by(1001, lambda: shell(f"setfacl {change} {name}")[0], groups), mode(name)))
            say(f"set-group-id of {name} after {change}", found)


def ranges():
    file = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(file, bytes(range(1, 251)) * 4194)
    os.ftruncate(file, MIB)
    os.fsync(file)
    steps = {
        "extend": (0, 0, 2 * MIB), "keep": (1, 0, 4 * MIB), "punch": (3, 65536, 131072), "punch odd": (3, 300001, 1234), "zero": (16, 2 * MIB - 5, 1000),
        "zero and keep": (17, 2 * MIB, 9000), "nothing": (0, 0, 0), "negative": (0, -1, 10), "huge": (0, 1 << 62, 1 << 60),
    }
    for step, arguments in steps.items():
        done = told(lambda: checked(libc.fallocate(file, *arguments)))
        say(step, (done, os.fstat(file).st_size, hash_of(os.pread(file, 4 * MIB, 0))))
    hole = os.open("sparse", os.O_CREAT | os.O_RDWR)
    os.pwrite(hole, b"a" * 65536, 0)
    os.pwrite(hole, b"b" * 65536, 10 * MIB)
    os.ftruncate(hole, 20 * MIB)
    looks = [(0, 3), (0, 4), (65536, 3), (10 * MIB, 4), (10 * MIB + 65536, 3), (20 * MIB, 4), (20 * MIB - 1, 4)]
    for state in ["written", "synced"]:
        say(f"data and holes, {state}", [told(os.lseek, hole, at, whence) for at, whence in looks])
        os.fsync(hole)
    say("takes less than 1 MiB", os.stat("sparse").st_blocks * 512 < MIB)
    target = os.open("copy", os.O_CREAT | os.O_WRONLY)
    os.lseek(file, 0, os.SEEK_SET)
    say("copied", (os.copy_file_range(file, target, MIB, 0), os.sendfile(target, file, MIB, 1000)))
    with open("copy", "rb") as copy:
        say("what was copied", hash_of(copy.read()))
    for step, how in {"collapse": 8, "insert": 32}.items():
        say(step, told(lambda: checked(libc.fallocate(file, how, 0, 65536))))


def refused():
    """What FUSE or fuser does not carry, and what is refused by decision: "Not supported" in docs/semantics.md."""
    file = os.open("f", os.O_CREAT | os.O_RDWR)
    os.write(file, b"a" * 131072)
    os.fsync(file)
    other = os.open("g", os.O_CREAT | os.O_RDWR)
    status = ctypes.create_string_buffer(256)
    checked(libc.statx(-100, b"f", 0, 0x800, status))
    say("time of birth", "told" if struct.unpack_from("I", status)[0] & 0x800 else "not told")
    verity = struct.pack("IIIIQIIQ88x", 1, 1, 4096, 0, 0, 0, 0, 0)
    asked = {
        "FICLONE": (other, 0x40049409, file),
        "FICLONERANGE": (other, 0x4020940D, struct.pack("qQQQ", file, 0, 65536, 0)),
        "FS_IOC_FIEMAP": (file, 0xC020660B, struct.pack("QQIIII", 0, 131072, 0, 0, 0, 0)),
        "FS_IOC_GETFLAGS": (file, 0x80086601, bytes(8)),
        "FS_IOC_SETFLAGS": (file, 0x40086602, bytes(8)),
        "FS_IOC_FSGETXATTR": (file, 0x801C581F, bytes(28)),
        "FS_IOC_ENABLE_VERITY": (file, 0x40806685, verity),
    }
    calls = {name: lambda arguments=arguments: fcntl.ioctl(*arguments) for name, arguments in asked.items()}
    calls["RWF_NOWAIT, read"] = lambda: os.preadv(file, [bytearray(10)], 0, os.RWF_NOWAIT)
    calls["RWF_NOWAIT, write"] = lambda: os.pwritev(file, [b"a" * 10], 0, os.RWF_NOWAIT)
    calls["FALLOC_FL_UNSHARE_RANGE"] = lambda: checked(libc.fallocate(file, 0x40, 0, 65536))
    for name, call in calls.items():
        done = told(call)
        say(name, done if isinstance(done, str) else "done")
    say("what is in it", hash_of(os.pread(file, MIB, 0)))


def hash_of(data):
    return hashlib.sha256(data).hexdigest()[:16]


def at_once():
    """Pages, maps and O_DIRECT show one state."""
    whole, back = mmap.mmap(-1, MIB), mmap.mmap(-1, MIB)
    whole.write(bytes(range(256)) * 4096)
    direct = os.open("f", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
    say("O_DIRECT", (os.pwritev(direct, [whole], 0), os.preadv(direct, [back], 0), back[:] == whole[:], os.preadv(direct, [back], MIB)))
    pages = os.open("f", os.O_RDWR)
    os.pwrite(pages, b"NEW", 4096)
    os.preadv(direct, [back], 0)
    say("O_DIRECT sees pages", back[4096:4099])
    os.pwritev(direct, [whole], 0)
    say("pages see O_DIRECT", os.pread(pages, 3, 4096))
    map = mmap.mmap(pages, MIB)
    map[100:103] = b"MAP"
    os.preadv(direct, [back], 0)
    say("both see a map", (os.pread(pages, 3, 100), back[100:103]))
    os.pwrite(pages, b"WRT", 200)
    say("a map sees a write", map[200:203])
    os.ftruncate(pages, 4096)
    os.ftruncate(pages, 8192)
    say("a map after the file was cut and grew", (map[100:103], map[5000:5003]))
    gone = os.open("gone", os.O_CREAT | os.O_RDWR)
    os.write(gone, b"abc")
    os.unlink("gone")
    say("without a name", (os.fstat(gone).st_nlink, os.pread(gone, 3, 0), told(os.ftruncate, gone, MIB), os.fstat(gone).st_size))
    say("a name for it", told(os.link, f"/proc/self/fd/{gone}", "back", follow_symlinks=True))
    appenders = [os.open("log", os.O_CREAT | os.O_WRONLY | os.O_APPEND) for _ in range(4)]
    for n in range(400):
        os.write(appenders[n % 4], b"%04d\n" % n)
    with open("log") as log:
        say("appended by four", [int(line) for line in log] == list(range(400)))


def locks():
    make("f", b"0" * 100)
    held = os.open("f", os.O_RDWR)

    def other(call):
        return by(0, lambda: call(os.open("f", os.O_RDWR)))

    def range_of(lock, start, length):
        return other(lambda file: fcntl.lockf(file, lock | fcntl.LOCK_NB, length, start))

    fcntl.flock(held, fcntl.LOCK_EX)
    say("flock, held alone", other(lambda file: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)))
    fcntl.flock(held, fcntl.LOCK_SH)
    say("flock, shared", other(lambda file: fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)))
    fcntl.flock(held, fcntl.LOCK_UN)
    fcntl.lockf(held, fcntl.LOCK_EX, 10, 0)
    say("fcntl, over and beside", (range_of(fcntl.LOCK_EX, 5, 5), range_of(fcntl.LOCK_EX, 10, 5)))

    def holder(file):
        packed = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
        kind, _, start, length, pid = struct.unpack("hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, packed))
        return (kind, start, length, pid == os.getppid())

    say("fcntl, who has it", other(holder))
    fcntl.lockf(held, fcntl.LOCK_UN)

    def of_description(file):
        return fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)) and None

    say("of open file descriptions", (told(of_description, held), other(of_description)))
    os.close(held)
    waiting_locks()


def waiting_locks():
    """Locks that somebody waits for, and what ends them."""

    def child(act):
        """Runs `act` with two pipes to it; what it wrote until it ended."""
        ours, theirs = os.pipe()
        goes, told_to = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(told_to)
            act(lambda text: os.write(theirs, text.encode()), lambda: os.read(goes, 1))
            os._exit(0)
        os.close(theirs)
        os.close(goes)
        return pid, lambda: os.read(ours, 100).decode(), lambda: os.write(told_to, b"x")

    def whole(file, lock=fcntl.LOCK_EX):
        return fcntl.lockf(file, lock, 10, 0)

    def waits(tell, _):
        file = os.open("f", os.O_RDWR)
        tell("waits")
        whole(file)
        tell("has it")

    for name, end in [
        ("unlocked", lambda file: whole(file, fcntl.LOCK_UN)),
        ("closed", os.close),
        ("another descriptor of it closed", lambda file: os.close(os.open("f", os.O_RDONLY))),
    ]:
        held = os.open("f", os.O_RDWR)
        whole(held)
        pid, heard, _ = child(waits)
        first = heard()
        time.sleep(0.2)
        before = os.waitpid(pid, os.WNOHANG)[0] == 0
        end(held)
        say(f"fcntl, waited for until {name}", (first, before, heard()))
        os.waitpid(pid, 0)
        told(os.close, held)

    def holds(tell, go):
        file = os.open("f", os.O_RDWR)
        whole(file)
        tell("has it")
        go()

    pid, heard, _ = child(holds)
    heard()
    held = os.open("f", os.O_RDWR)
    busy = told(fcntl.lockf, held, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    say("fcntl, waited for until its holder is killed", (busy, told(whole, held)))

    def second(tell, go):
        file = os.open("f", os.O_RDWR)
        fcntl.lockf(file, fcntl.LOCK_EX, 10, 50)
        tell("has the second")
        go()
        # Whoever waits has 0 to 10, and waits for 50 to 60.
        tell(str(told(whole, file)))

    pid, heard, go = child(second)
    first = heard()
    go()
    until_it_waits(pid)
    mine = told(fcntl.lockf, held, fcntl.LOCK_EX, 10, 50)
    fcntl.lockf(held, fcntl.LOCK_UN)
    say("fcntl, two who wait for each other", (first, mine, heard()))
    os.waitpid(pid, 0)

    pid, heard, _ = child(holds)
    heard()
    signal.signal(signal.SIGALRM, lambda *_: None)
    # Again and again: the first may come before the call waits.
    signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)
    ended = whole_once(held)
    signal.setitimer(signal.ITIMER_REAL, 0)
    say("fcntl, a wait that a signal ends", ended)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.kill(pid, 9)
    os.waitpid(pid, 0)

    fcntl.flock(held, fcntl.LOCK_EX)
    copy = os.dup(held)

    def shares(tell, _):
        os.close(held)
        os.close(copy)
        fcntl.flock(os.open("f", os.O_RDWR), fcntl.LOCK_EX)
        tell("has it")

    pid, heard, _ = child(shares)
    os.close(held)
    time.sleep(0.2)
    before = os.waitpid(pid, os.WNOHANG)[0] == 0
    os.close(copy)
    say("flock, waited for until the last copy of the descriptor is closed", (before, heard()))
    os.waitpid(pid, 0)


def until_it_waits(pid):
    """Until the kernel shows that a process waits for a lock; for a minute at most."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with open("/proc/locks") as locks:
            if any("->" in line and str(pid) in line.split() for line in locks):
                return
        time.sleep(0.01)


def whole_once(file):
    """Python tries again after a signal; the call itself does not."""
    lock = ctypes.create_string_buffer(struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 10, 0))
    returned = libc.fcntl(file, 7, lock)
    return errno.errorcode[ctypes.get_errno()] if returned else "has it"


def events():
    watcher = libc.inotify_init1(os.O_NONBLOCK)
    os.mkdir("d")
    libc.inotify_add_watch(watcher, b"d", 0xFFF)
    make("d/f", b"1")
    os.chmod("d/f", 0o600)
    os.rename("d/f", "d/g")
    os.unlink("d/g")
    data, seen = os.read(watcher, 65536), []
    while data:
        _, mask, _, length = struct.unpack_from("iIII", data)
        seen.append((hex(mask), data[16 : 16 + length].rstrip(b"\0")))
        data = data[16 + length :]
    say("events", seen)


def opening():
    make("f", b"#!/bin/sh\necho it ran\n", 0o755)
    os.mkdir("d")
    os.symlink("f", "link")
    os.symlink("made", "dangling")
    flags = {"d": [os.O_WRONLY, os.O_TMPFILE | os.O_RDWR], "link": [os.O_NOFOLLOW, os.O_CREAT | os.O_EXCL], "f": [os.O_DIRECTORY], "dangling": [os.O_CREAT | os.O_WRONLY]}
    for name, each in flags.items():
        for flag in each:
            opened = told(os.open, name, flag)
            say(f"open {name} {oct(flag)}", opened if isinstance(opened, str) else "open")
    say("made through a link", os.path.exists("made"))
    say("run", shell("./f"))
    say("read of a directory", told(os.read, os.open("d", os.O_RDONLY), 10))
    shutil.copy("/bin/sleep", "sleep")
    running = subprocess.Popen(["./sleep", "60"])
    os.path.realpath(f"/proc/{running.pid}/exe")
    say("written while it runs", told(os.open, "sleep", os.O_WRONLY))
    running.kill()
    running.wait()


def main():
    os.umask(0o022)
    os.chdir(sys.argv[1])
    top = os.getcwd()
    failed = False
    for part in [times, modes, kinds, links, renames, paths, listings, attributes, lists, ranges, refused, at_once, locks, events, opening]:
        os.mkdir(part.__name__)
        os.chdir(part.__name__)
        print(f"== {part.__name__}", flush=True)
        try:
            part()
        except Exception:  # A file system that does not even allow the preparations still shows what it does of the rest.
            traceback.print_exc()
            failed = True
        os.chdir(top)
        shell(f"rm -r {part.__name__}")
    return failed


sys.exit(main())
