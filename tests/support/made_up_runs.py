"""Files as `pyrometer ci record` writes them (docs/formats/runs.md), of a program that never was: what tests of reports need,
without root, BPF and time. The same seed, the same file."""

import json
import math
import random

MACHINE = {"cpu": "Made Up 1", "cpus": 4, "kernel": "6.1.0-1-test", "architecture": "x86_64", "governor": "", "virtualization": "",
           "memory_bytes": 1 << 33}


def poisson(generator, mean):
    """Normal approximation above 50, exact below."""
    if mean > 50:
        return max(0, round(generator.gauss(mean, math.sqrt(mean))))
    limit, product, count = math.exp(-mean), generator.random(), 0
    while product > limit:
        product *= generator.random()
        count += 1
    return count


def made_up(stacks, seed, runs=12, places=None, machine=None, command="./bench", cpu_ns=True, drift=0.0, frequency=1999,
            instructions=0):
    """`stacks`: (names from the outside in, mean samples a run); names are of the module "app" unless written "module!name".
    `places`: name -> (file, line). `drift`: by how much the first function grows over the runs.
    `instructions` of a run, within a millionth; 0 = not counted."""
    generator = random.Random(seed)
    functions, nodes, function_index, node_index, leaves = [], [], {}, {}, []
    for names, mean in stacks:
        parent = 0
        for text in names:
            module, _, name = text.rpartition("!")
            key = (name, module or "app")
            if key not in function_index:
                file, line = (places or {}).get(name, ("", 0))
                functions.append([name, key[1], file, line])
                function_index[key] = len(functions)
            place = (parent, function_index[key])
            if place not in node_index:
                nodes.append(list(place))
                node_index[place] = len(nodes)
            parent = node_index[place]
        leaves.append((parent, mean))
    rows = []
    for run in range(runs):
        speed = math.exp(generator.gauss(0, 0.02))
        counts = {}
        for position, (node, mean) in enumerate(leaves):
            factor = 1 + drift * run / max(1, runs - 1) if position == 0 else 1
            counts[node] = counts.get(node, 0) + poisson(generator, mean * speed * factor)
        total = sum(counts.values())
        counted = {"instructions": round(instructions * (1 + run % 3 * 1e-6))} if instructions else {}
        rows.append({"started_ns": 1_700_000_000_000_000_000 + run * 2_000_000_000, "wall_ns": total * 500_000,
                     "cpu_ns": total * 500_000 if cpu_ns else 0, "lost_samples": 0, **counted,
                     "counts": [[node, count] for node, count in sorted(counts.items()) if count]})
    return {"format": "pyrometer-runs", "version": 1,
            "origin": {"command": command, "how": "made up", "frequency_hz": frequency, "machine": {**MACHINE, **(machine or {})}},
            "functions": functions, "nodes": nodes, "runs": rows}


def write(path, *arguments, **named):
    path.write_text(json.dumps(made_up(*arguments, **named)))
    return path
