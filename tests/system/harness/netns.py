"""A network namespace (and mounts) of the test's own, with the addresses of the tests on lo. Root makes it directly,
anybody else inside a user namespace; where neither is allowed, the tests are skipped with that reason."""
import ctypes
import os
import subprocess
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
ORIGIN = "198.51.100.10"
OTHER_ORIGIN = "198.51.100.11"
ORIGIN6 = "2001:db8:7::7"
ADDRESSES = [f"{ORIGIN}/32", f"{OTHER_ORIGIN}/32", "192.0.2.7/32", f"{ORIGIN6}/128"]
libc = ctypes.CDLL(None, use_errno=True)


def unshare(flags):
    if libc.unshare(flags) != 0:
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def write(path, text):
    with open(path, "w") as f:
        f.write(text)


def become_root_of_a_user_namespace():
    uid, gid = os.getuid(), os.getgid()
    unshare(CLONE_NEWUSER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {uid} 1")
    write("/proc/self/gid_map", f"0 {gid} 1")


def ip(*args):
    tool = next((p for p in ("/usr/sbin/ip", "/sbin/ip", "/usr/bin/ip", "/bin/ip") if os.path.exists(p)), "ip")
    subprocess.run([tool, *args], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def enter():
    """Once, before threads are started. Ends the program with a SKIP line where there is no way."""
    try:
        if os.getuid() != 0:
            become_root_of_a_user_namespace()
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        libc.mount(b"none", b"/", None, (1 << 14) | (1 << 18), None)  # MS_REC | MS_PRIVATE: mounts stay ours
        ip("link", "set", "lo", "up")
        for address in ADDRESSES:
            ip("addr", "add", address, "dev", "lo", *(["nodad"] if ":" in address else []))
    except (OSError, subprocess.CalledProcessError) as e:
        print(f"SKIP {os.path.basename(sys.argv[0])}: no network namespace here: {e}", flush=True)
        sys.exit(0)


def privileged():
    """True when more than one user exists here, so that a daemon can drop to another."""
    with open("/proc/self/uid_map") as f:
        return sum(int(line.split()[2]) for line in f) > 1


def die_with_parent():
    """For preexec_fn: a test that is killed leaves nobody behind."""
    libc.prctl(1, 15, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGTERM
