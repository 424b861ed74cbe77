#!/usr/bin/env python3
"""Turns the JSON results of run.sh into a table: table.py FOLDER FILE FACTS."""

import glob
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))
from machine import build, processor

SETTINGS = ("1,1", "2,2", "3,1", "1,3")
WORKLOADS = (
    ("get", "Reads only", ("get",)),
    ("put", "Writes only", ("put",)),
    ("mix", "90 % reads, 10 % writes", ("get", "put")),
)


def load(folder, name):
    """The results of all rounds of one setting."""
    results = []
    for path in sorted(glob.glob(os.path.join(folder, name + "-*.json"))):
        with open(path, encoding="utf-8") as file:
            results.append(json.load(file))
    return results


def median(results, pick):
    return statistics.median(pick(result) for result in results)


def table(folder, workload, operations):
    heads = "".join(f" {operation} p50 | {operation} p99 |" for operation in operations)
    lines = [
        f"| R, W | throughput |{heads} node CPU s per million | nodes busy | generator busy | errors |",
        "|---" * (6 + 2 * len(operations)) + "|",
    ]
    for setting in SETTINGS:
        results = load(folder, f"{workload}-{setting}")
        if not results:
            continue
        cells = [setting.replace(",", ", ")]
        cells.append(f"{median(results, lambda result: result['throughput']):,.0f}/s")
        for operation in operations:
            for percentile in ("p50", "p99"):
                micros = median(results, lambda result: result[operation]["service_us"][percentile])
                cells.append(f"{micros / 1000:,.2f} ms")
        # Microseconds a request are seconds a million requests.
        cells.append(f"{median(results, lambda result: result['server']['micros_per_request']):.1f}")
        cells.append(f"{median(results, lambda result: result['server']['percent']):.0f} %")
        cells.append(f"{median(results, lambda result: result['generator']['percent']):.0f} %")
        cells.append(str(sum(sum(result["errors"].values()) for result in results)))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def machine():
    load_average = os.getloadavg()[2]
    return [
        f"- {processor()}, nodes and generator together on"
        f" them; load average of the last 15 minutes, this run included: {load_average:.1f}",
        f"- {build()}",
    ]


def main():
    folder, path, facts = sys.argv[1:]
    lines = ["# Three local nodes: what R and W cost", ""]
    lines += machine()
    lines += [f"- N=3, strict, one data core a node, {facts}; medians", "- `perf/cluster/run.sh`"]
    lines += [
        "",
        "Processor seconds are those of all three nodes, per million requests of clients. A write"
        " goes to all three replicas whatever W is; W says how many are waited for. A request goes to"
        " the first node of its partition's list, so its coordinator is always a replica.",
    ]
    for workload, title, operations in WORKLOADS:
        lines += ["", f"## {title}", ""] + table(folder, workload, operations)
    text = "\n".join(lines) + "\n"
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    print(f"written to {path}")


main()
