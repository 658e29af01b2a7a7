"""Runs commands of Ceph side by side, in one client. The program `ceph` is Python too, and takes a process for each.

`main` takes a JSON text: {"file": PATH, "config": {OPTION: VALUE}, "first": [COMMAND], "then": [COMMAND]}. A command is one of
  {"mon": {...}}                                              to the monitors
  {"osd": NUMBER, "command": {...}}                           to one OSD
  {"volume": "POOL/NAME"}                                     who uses a volume: its watchers and its locks
  {"volume": "POOL/NAME", "unlock": {"id": ID, "locker": CLIENT}}
All of `first` run at once, then all of `then`. Printed is [[CODE, OUTPUT, WORDS], ...] in their order. Whoever runs this kills it
at its deadline: nothing here waits for ever on its own account, and nothing has to be tidied up.
"""

import errno
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import rados

# More at once than any node has guests would only queue up at the monitors.
AT_ONCE = 64


def users_of(image):
    held = image.list_lockers() or {"lockers": []}
    locks = [{"id": id, "locker": locker, "address": address} for locker, id, address in held["lockers"]]
    watchers = [{"address": watcher["addr"]} for watcher in image.watchers_list()]
    return json.dumps({"watchers": watchers, "locks": locks})


def on_volume(cluster, each):
    # Only here: who does not need it need not wait for it.
    import rbd

    pool, name = each["volume"].split("/", 1)
    unlock = each.get("unlock")
    try:
        with cluster.open_ioctx(pool) as pool:
            try:
                image = rbd.Image(pool, name, read_only=unlock is None)
            except rbd.ImageNotFound as error:
                # That can also be an object of an image that is there.
                if name in rbd.RBD().list(pool):
                    return [-1, "", str(error)]
                return [errno.ENOENT, "", "no such volume"]
            # Left open, it would stay among the watchers for half a minute.
            with image:
                if unlock is None:
                    return [0, users_of(image), ""]
                image.break_lock(unlock["locker"], unlock["id"])
                return [0, "", ""]
    except rbd.Error as error:
        return [-1, "", str(error)]


def main(text):
    order = json.loads(text)
    cluster = rados.Rados(name="client.admin", conffile=order["file"], conf=order["config"])
    cluster.connect()

    def run(each):
        try:
            if "volume" in each:
                return on_volume(cluster, each)
            if "mon" in each:
                code, output, words = cluster.mon_command(json.dumps(each["mon"]), b"")
            else:
                code, output, words = cluster.osd_command(each["osd"], json.dumps(each["command"]), b"")
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
