#!/usr/bin/env python3
"""Turns the JSON results of run.sh into lines, into the half-load rate and into the final table."""

import glob
import json
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), os.pardir))
from machine import build, output, processor


def load(folder, name):
    """The results of all rounds of one subject."""
    paths = sorted(glob.glob(os.path.join(folder, name + "-*.json")))
    results = []
    for path in paths:
        with open(path, encoding="utf-8") as file:
            results.append(json.load(file))
    return results


def median(results, pick):
    return statistics.median(pick(result) for result in results)


def throughput(result):
    return result["throughput"]


def server_micros(result):
    return result["server"]["micros_per_request"]


def generator_percent(result):
    return result["generator"]["percent"]


def p99(operation, kind="service_us"):
    return lambda result: result[operation][kind]["p99"]


def line(path):
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    parts = [f"{os.path.basename(path)[:-5]:<24} {result['throughput']:>10.0f}/s"]
    parts.append(f"server {server_micros(result):.3f} us/request, {result['server']['percent']:.0f} %")
    parts.append(f"generator {generator_percent(result):.0f} %")
    for operation in ("get", "put"):
        if result[operation]:
            kind = "response_us" if result[operation]["response_us"] else "service_us"
            parts.append(f"{operation} p99 {result[operation][kind]['p99']:.0f} us")
    if result["errors"]:
        parts.append(f"errors {result['errors']}")
    print("  ".join(parts))


def sizes(path):
    """Bytes of a request and of a reply, for a responder that moves the same."""
    with open(path, encoding="utf-8") as file:
        result = json.load(file)
    print(round(result["request_bytes"]), round(result["reply_bytes"]))


def table(folder, operation, subjects):
    """Rows of one comparison; ratios are to the first subject."""
    lines = [
        "| | throughput | server CPU per request | p99 | generator busy | throughput, ours / theirs | CPU, ours / theirs |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = None
    for name, label in subjects:
        results = load(folder, f"{operation}-{name}")
        if not results:
            continue
        row = (
            median(results, throughput),
            median(results, server_micros),
            median(results, p99(operation)),
            median(results, generator_percent),
        )
        ours = ours or row
        lines.append(
            f"| {label} | {row[0]:,.0f}/s | {row[1]:.3f} us | {row[2]:,.0f} us | {row[3]:.0f} % "
            f"| {ours[0] / row[0]:.2f} | {ours[1] / row[1]:.2f} |"
        )
    return lines


def latencies(folder):
    lines = [
        "| | rate | server busy | GET response p50 | p99 of the median second | p99 | p99.9 | p99 in the server | compacted meanwhile | not sent in time |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    subjects = (
        ("compaction", "90 % reads, 10 % durable writes"),
        ("closed", "the same, 8 connections in a closed loop"),
        ("quiet", "reads only"),
        ("bare", "bare io_uring responder"),
    )
    for name, label in subjects:
        for result in load(folder, f"half-{name}"):
            get = result["get"]["response_us"] or result["get"]["service_us"]
            storage = result["storage"] or {"compaction_bytes": 0, "latency": {}}
            inside = storage["latency"].get("get")
            inside = f"{inside['p99_us']:.0f} us" if inside else ""
            lines.append(
                f"| {label} | {result['rate'] or result['throughput']:,.0f}/s | {result['server']['percent']:.0f} % "
                f"| {get['p50']:.0f} us | {result['get']['median_second_p99_us']:.0f} us "
                f"| {get['p99']:.0f} us | {get['p999']:.0f} us | {inside} "
                f"| {storage['compaction_bytes'] / 2**20:.0f} MiB | {result['unsent']} |"
            )
    return lines


def storage(folder):
    results = [result for result in load(folder, "put-coronet") if result["storage"]]
    if not results:
        return []
    factor = median(results, lambda result: result["storage"]["write_amplification"] or 0)
    return ["", f"Write amplification during the PUT runs: {factor:.2f} (median)."]


def machine():
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / 2**20
    return [
        f"- {processor()}, {memory:.0f} GiB memory",
        f"- {output('redis-server', '--version')}",
        f"- {build()}",
        "- 1024 byte values, 24 byte keys, 100,000 keys, 50 connections x 16 deep, uniform keys,"
        " server on processor 0, generator on processor 1, medians of all rounds",
        "- repeat with `perf/single_node/run.sh`",
    ]


def write(folder, path):
    with open(os.path.join(folder, "idle_ms"), encoding="utf-8") as file:
        idle = int(file.read()) / 10_000 * 100
    lines = ["# One node on one core", ""]
    lines += machine()
    lines += ["", "## Cached GET", ""]
    lines += table(
        folder,
        "get",
        (("coronet", "coronetd"), ("bare", "bare io_uring responder"), ("redis", "Redis GET")),
    )
    lines += ["", "## Durable PUT", ""]
    lines += table(
        folder,
        "put",
        (
            ("coronet", "coronetd, durable"),
            ("redis_everysec", "Redis, appendfsync everysec"),
            ("redis_always", "Redis, appendfsync always"),
        ),
    )
    lines += storage(folder)
    lines += ["", "## GET at about half load, one request a message, open loop unless said", ""]
    lines += latencies(folder)
    lines += ["", "## Idle", "", f"{idle:.2f} % of a core over 10 s.", ""]
    text = "\n".join(lines)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    print(text)
    print(f"written to {path}")


def main():
    verb, arguments = sys.argv[1], sys.argv[2:]
    if verb == "line":
        line(*arguments)
    elif verb == "sizes":
        sizes(*arguments)
    elif verb == "half":
        print(int(median(load(arguments[0], "single-coronet"), throughput) / 4))
    elif verb == "write":
        write(*arguments)
    else:
        sys.exit(f"unknown verb {verb}")


main()
