"""A tiny runner: functions marked @case run in order; each prints one line PASS, FAIL or SKIP, which tests/run counts."""
import os
import sys
import time
import traceback


class Skip(Exception):
    """This case cannot be tried here; the text says why."""


class Failed(AssertionError):
    pass


REGISTERED = []
failures = 0
last = []


def at_end(function):
    """Something to do when all cases have run."""
    last.append(function)


def case(function):
    REGISTERED.append(function)
    return function


def expect(condition, text):
    if not condition:
        raise Failed(text)


def equal(got, wanted, what):
    if got != wanted:
        raise Failed(f"{what}: got {got!r}, expected {wanted!r}")


def eventually(predicate, what, seconds=5.0):
    """Waits until predicate() is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.02)


def report(name, why=None, skip=False):
    """One line for a case that is a row of a table."""
    global failures
    kind = "SKIP" if skip else "FAIL" if why else "PASS"
    failures += kind == "FAIL"
    print(f"{kind} {name}" + (": " + " ".join(str(why).split()) if why else ""), flush=True)


def main():
    """Runs all cases, or those whose names contain an argument."""
    wanted = sys.argv[1:]
    for function in REGISTERED:
        if wanted and not any(w in function.__name__ for w in wanted):
            continue
        try:
            function()
        except Skip as e:
            report(function.__name__, e, skip=True)
        except Exception as e:  # whatever a case trips over is a failure of that case alone
            if not isinstance(e, Failed):
                traceback.print_exc()
            report(function.__name__, e or type(e).__name__)
        else:
            if not getattr(function, "is_table", False):
                report(function.__name__)
    for function in last:
        function()
    sys.stdout.flush()
    os._exit(1 if failures else 0)  # the background loop has no work of its own to finish


def table(function):
    """@case whose rows report for themselves."""
    function.is_table = True
    return case(function)
