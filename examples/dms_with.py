#!/usr/bin/env python3
# dms_with.py: what a Python program does instead of importing the old client; standard library only.
#
#     dms_with.py REQUEST [TEXT]
#
# Two ways to use a target from Python:
#
#   - mounted(request): a context manager, like MountContext. It keeps dms-with running around the
#     block, so that the target is unmounted however the block ends, and also if this process is
#     killed: dms-with sees the end of its input.
#   - ask(request): one request through the pipeline, one answer, like client.mount and
#     client.unmount.
#
# Run as a program it writes TEXT to a file on the target of REQUEST, a file with one request, and
# prints what is there; then it mounts and unmounts by hand.

import contextlib
import json
import os
import subprocess
import sys


class DMSError(Exception):
    """The target could not be mounted, or unmounted. `code` is the exit code, or the error_code."""

    def __init__(self, text, code):
        super().__init__(text)
        self.code = code


@contextlib.contextmanager
def mounted(request):
    """Mounts for the block, and yields the path. The request is as the old client took it."""
    # What it runs says where the mount is, and then waits for the end of its input, which comes
    # with the end of the block, or of this process.
    wait = 'printf "%s\\n" "$DMS_MOUNT_PATH"; exec cat >/dev/null'
    # The request has a token in it: it goes through a pipe, not through a file or an argument.
    line, sender = os.pipe()
    command = ["dms-with", "--strict", "/dev/fd/%d" % line, "--", "sh", "-c", wait]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[line],
    )
    os.close(line)
    with contextlib.suppress(BrokenPipeError), open(sender, "w") as pipe:
        json.dump(request, pipe)
    path = process.stdout.readline().rstrip("\n")
    try:
        if path:
            yield path
    finally:
        process.stdin.close()
        code = process.wait()
        process.stdout.close()
    if not path:
        raise DMSError("unable to mount %s" % request["backup_target"]["id"], code)
    if code != 0:
        raise DMSError("unable to unmount %s" % request["backup_target"]["id"], code)


def ask(request, pipeline=os.environ.get("DMS_PIPELINE") or "dms-pipeline"):
    """One request, one answer: a dictionary with status, error_msg and success_msg."""
    line = json.dumps(request) + "\n"
    done = subprocess.run(
        pipeline, shell=True, input=line, stdout=subprocess.PIPE, text=True, check=False
    )
    if not done.stdout:
        raise DMSError("the pipeline did not answer", done.returncode)
    return json.loads(done.stdout)


def active_mounts(*options):
    """The bindings that are active: a dictionary each; e.g. active_mounts("--host", "compute-01")."""
    command = ["dms-ledger", "list", "--json", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main(path, text="hello"):
    with open(path) as file:
        request = json.load(file)
    try:
        with mounted(request) as mount:
            with open(os.path.join(mount, "from-python"), "w") as file:
                file.write(text + "\n")
            print("on the target:", ", ".join(sorted(os.listdir(mount))))
            print("active:", ", ".join(row["target"] for row in active_mounts()))
    except DMSError as why:
        print("dms_with.py: fatal: %s" % why, file=sys.stderr)
        return 1
    # By hand: every mount needs its unmount.
    for action in ["mount", "unmount"]:
        answer = ask({**request, "action": action})
        if answer["status"] == "error":
            print("dms_with.py: fatal: %s" % answer["error_msg"], file=sys.stderr)
            return 1
        print(answer["success_msg"])
    return 0


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        print("usage: dms_with.py REQUEST [TEXT]", file=sys.stderr)
        sys.exit(100)
    sys.exit(main(*sys.argv[1:]))
