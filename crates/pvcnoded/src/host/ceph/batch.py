"""Runs commands of Ceph side by side, in one client. The program `ceph` is Python too, and takes a process for each.

`main` takes a JSON text: {"file": PATH, "config": {OPTION: VALUE}, "first": [COMMAND], "then": [COMMAND]}. A command is
{"osd": NUMBER or null, "command": {...}}; null means the monitors. All of `first` run at once, then all of `then`. Printed is
[[CODE, OUTPUT, WORDS], ...] in their order. Whoever runs this kills it at its deadline: nothing here waits for ever on its own
account, and nothing has to be tidied up.
"""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import rados

# More at once than any node has guests would only queue up at the monitors.
AT_ONCE = 64


def main(text):
    order = json.loads(text)
    cluster = rados.Rados(name="client.admin", conffile=order["file"], conf=order["config"])
    cluster.connect()

    def run(each):
        command = json.dumps(each["command"])
        try:
            if each["osd"] is None:
                code, output, words = cluster.mon_command(command, b"")
            else:
                code, output, words = cluster.osd_command(each["osd"], command, b"")
        except rados.Error as error:
            return [-1, "", str(error)]
        return [code, output.decode("utf-8", "replace"), str(words)]

    answers = []
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for commands in (order["first"], order["then"]):
            answers += threads.map(run, commands)
        json.dump(answers, sys.stdout)
        sys.stdout.flush()
        # A client that ends in order waits for monitors that may be dead.
        os._exit(0)
