#!/usr/bin/env python3
"""A checker that is taken: whatever it says, leaves out or does not end, the gate goes on and the run's leaf key is none of its choosing."""
import os
import re
import shutil
import subprocess
import tempfile

from harness import netns
netns.enter()
from harness import cases, gate as gates
from harness.cases import Skip, case, equal, eventually, expect

FAKE = r"""
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static void say(uint16_t type, const char *payload, uint32_t len)
{
    struct { uint16_t type, fds; uint32_t len; } head = {type, 0, len};
    struct iovec iov[2] = {{&head, sizeof head}, {(void *)payload, len}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = len ? 2 : 1};
    sendmsg(3, &msg, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    char mode[32] = "";
    int fd = open(DIR "/mode", O_RDONLY), leaf = 0;
    if (fd >= 0 && read(fd, mode, sizeof mode - 1) < 0)
        return 9;
    close(fd);
    for (int i = 2; i + 1 < argc; i++)
        leaf |= !strcmp(argv[i], "--leaf") && !strcmp(argv[i + 1], "1");
    if (argc > 1 && !strcmp(argv[1], "checker")) {
        if (!strcmp(mode, "stay")) { close(3); pause(); }
        if (!strcmp(mode, "answer, stay")) { say(CHECKED, "", 0); close(3); pause(); }
        if (!strcmp(mode, "key unasked") && !leaf) { say(CHECKED, "a\0b", 4); return 0; }
        if (!strcmp(mode, "no key") && leaf) { say(CHECKED, "", 0); return 0; }
        if (!strcmp(mode, "half a key") && leaf) { say(CHECKED, "a", 2); return 0; }
    }
    execv(DIR "/sallyport-worker.real", argv);
    return 127;
}
"""


def number(name):
    """Of a member of enum control, as the header counts them."""
    text = open(os.path.join(gates.ROOT, "include/sallyport/process/control.h")).read()
    body = text[text.index("enum control {"):]
    names = re.findall(r"^\s+(CONTROL_\w+)", body[:body.index("};")], re.M)
    return names.index(name)


class Taken:
    """The binaries in a folder of their own, with a checker that does as the file `mode` says."""

    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="sallyport-taken-")
        os.chmod(self.dir, 0o755)
        beside = os.path.dirname(gates.binary())
        for name in ("", "-tool", "-recorder", "-keeper"):
            shutil.copy(f"{beside}/sallyport{name}", self.dir)
        shutil.copy(f"{beside}/sallyport-worker", f"{self.dir}/sallyport-worker.real")
        source = os.path.join(self.dir, "fake.c")
        with open(source, "w") as f:
            f.write(FAKE)
        cc = shutil.which("cc")
        if not cc:
            raise Skip("no compiler")
        subprocess.run([cc, "-O1", f'-DDIR="{self.dir}"', f"-DCHECKED={number('CONTROL_CHECKED')}", "-o",
                        f"{self.dir}/sallyport-worker", source], check=True)
        self.mode("")
        self.before = os.environ.get("SALLYPORT")
        os.environ["SALLYPORT"] = f"{self.dir}/sallyport"

    def mode(self, text):
        with open(f"{self.dir}/mode.new", "w") as f:
            f.write(text)
        os.rename(f"{self.dir}/mode.new", f"{self.dir}/mode")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.before is None:
            del os.environ["SALLYPORT"]
        else:
            os.environ["SALLYPORT"] = self.before
        shutil.rmtree(self.dir, ignore_errors=True)


def goes_on(mode):
    with Taken() as t:
        g = gates.Gate({"default": gates.limited("a.example")}).start()
        try:
            t.mode(mode)
            g.write_policy("default", gates.limited("b.example"))
            eventually(lambda: g.children("checker"), "a checker runs")
            worker = g.children("worker")[0]
            t.mode("")
            os.kill(worker, 9)
            eventually(lambda: g.children("worker") and g.children("worker")[0] != worker, "another worker is started", 15)
            eventually(lambda: not g.children("checker"), "the checker is ended", 15)
        finally:
            g.stop()


@case
def a_checker_that_closes_its_channel_and_stays_is_ended():
    goes_on("stay")


@case
def a_checker_that_answers_and_stays_is_ended():
    goes_on("answer, stay")


def refused(mode, config):
    with Taken() as t:
        t.mode(mode)

        def ca(g):
            gates.run("ca", "init", "--dir", g.path("ca"))
        g = gates.Gate({"default": gates.limited("a.example")}, config, prepare=ca if config else None)
        g.spawn()
        equal(g.process.wait(20), 3, "exit status")
        expect("the checker's answer is none" in g.stderr(), g.stderr())


@case
def a_key_that_nobody_asked_for_is_no_answer():
    refused("key unasked", None)


@case
def an_answer_without_the_key_is_none():
    for mode in ("no key", "half a key"):
        refused(mode, {"inspect": {"mode": "all", "ca": "ca"}})


cases.main()
