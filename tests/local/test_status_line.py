import io

from tools.terminal.status_line import PLAIN_INTERVAL_SECONDS, StatusLine


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_terminal_sees_one_line_rewritten():
    terminal = Terminal()
    line = StatusLine(terminal)

    line("one")
    line("two")
    line.finish("done")

    assert terminal.getvalue().count("\n") == 1
    assert [part.strip() for part in terminal.getvalue().split("\r")][1:] == [
        "one",
        "two",
        "",
        "done",
    ]


def test_a_log_sees_a_line_now_and_then():
    log, clock = io.StringIO(), Clock()
    line = StatusLine(log, clock=clock)

    line("one")
    line("two")
    clock.seconds += PLAIN_INTERVAL_SECONDS
    line("three")
    line.finish("done")

    assert log.getvalue() == "one\nthree\ndone\n"
