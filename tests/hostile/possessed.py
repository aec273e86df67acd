"""The separation child, except that a source which begins with `#!python` takes it over.

It runs as Python where others are decoded, inside the real process and sandbox: the stand-in for a
memory fault in a decoder. It finds its `folder`, and the file descriptors that the process has.
"""

from __future__ import annotations

from common.separation import child_main, stems

_separate = stems.separate


def separate(engine, source, folder, *others):
    """Run the source, or separate it."""
    code = source.read_bytes()
    if code.startswith(b"#!python"):
        exec(compile(code, "song", "exec"), {"folder": folder, "source": source})
    return _separate(engine, source, folder, *others)


if __name__ == "__main__":
    stems.separate = separate
    child_main.main()
