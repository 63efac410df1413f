"""Functions that tests send to engines. Engines import this module, so it needs nothing but Python."""

import os
import time


def double(number):
    return 2 * number


def same(what):
    return what


def divide(a, b):
    return a / b


def fail(text):
    raise ValueError(text)


def speak(text):
    import sys

    print(text)
    print(text.upper(), file=sys.stderr)
    return text


def pid(*_):
    return os.getpid()


def pid_and_double(number):
    return os.getpid(), 2 * number


def stay(path, deadline=120.0):
    """Returns when the file is there."""
    end = time.monotonic() + deadline
    while not os.path.exists(path):
        if time.monotonic() > end:
            raise TimeoutError(path)
        time.sleep(0.005)
    return os.getpid()


def stay_for_nothing(path):
    """Stays, and its result is the same in any process."""
    stay(path)


def stay_and_fail(path):
    stay(path)
    raise ValueError("as told")


def only_on(number):
    if os.getpid() != number:
        raise RuntimeError("elsewhere")
    return number


def note(path, text):
    """Appends a line to a file: one write, so that lines of several engines do not mix."""
    with open(path, "a") as file:
        file.write(f"{text}\n")
    return os.getpid()


def note_and_fail(path, text):
    note(path, text)
    raise ValueError(text)


def double_or_hold(number, held_number, held_file):
    """Doubles; but for one number, the first to come tells its pid in a file, and never returns."""
    if number == held_number:
        try:
            file = os.open(held_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            return 2 * number
        os.write(file, f"{os.getpid()}\n".encode())
        os.close(file)
        time.sleep(3600)
    return 2 * number


def pid_is(number):
    return os.getpid() == number


def nap(seconds):
    time.sleep(seconds)
    return seconds


def stay_unless(path):
    """Returns at once what is empty, and anything else when the file of that name is there."""
    if path:
        stay(path)
    return path


def note_and_stay(noted, path):
    note(noted, os.getpid())
    stay(path)


def total(array):
    return array.sum()
