"""What every table of measurements says of the machine it was made on."""

import os
import platform
import subprocess


def output(*command):
    """What a command prints; "unknown" where there is no such command."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return "unknown"


def processor():
    """Number and kind of processors, and the kernel."""
    model = "unknown processor"
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        for entry in file:
            if entry.startswith("model name"):
                model = entry.split(":", 1)[1].strip()
                break
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def build():
    """The compiler and the state of the tree."""
    commit = output("git", "rev-parse", "--short", "HEAD")
    return f"{output('rustc', '--version')}, commit {commit}"
