"""A faulty filter before a tool of dms: what the mutants have in common.

Each mutant is a directory with one program that is called like a tool. With that directory as DMS_BIN
the program comes first in PATH, and finds the tool itself further on."""

import json
import os
import subprocess
import sys


def tool():
    """The path of the tool that this program is called like."""
    here, name = os.path.split(os.path.abspath(sys.argv[0]))
    for directory in os.environ["PATH"].split(":"):
        path = os.path.join(directory, name)
        if directory and os.path.abspath(directory) != here and os.access(path, os.X_OK):
            return path
    sys.exit(f"{name}: fatal: unable to find the tool itself")


def filters_requests(words):
    """Whether it is called as the stage with these words; otherwise it becomes the tool."""
    if sys.argv[1:] != words:
        os.execv(tool(), [tool()] + sys.argv[1:])


def start(words):
    """The tool, as a filter."""
    pipe = subprocess.PIPE
    return subprocess.Popen([tool()] + words, stdin=pipe, stdout=pipe, text=True, bufsize=1)


def ask(child, line):
    """The tool's answer to a line, or its end, which is ours, too."""
    child.stdin.write(line)
    child.stdin.flush()
    answer = child.stdout.readline()
    if not answer:
        sys.exit(child.wait() or 1)
    return answer


def say(line):
    """Says a line, or an object as a line."""
    text = line if isinstance(line, str) else json.dumps(line) + "\n"
    sys.stdout.write(text)
    sys.stdout.flush()


def end(child):
    """The input has ended."""
    child.stdin.close()
    sys.exit(child.wait())
