"""Looks at Ceph from outside the nodes, over one connection that it keeps, and prints what it sees as JSON lines.

The first line of its input is Ceph's configuration as a JSON object. Then come orders, an object a line:
  {"watch": "pool/image"}               from now on look at this volume
  {"audit": "pool/image", "id": 7}      read all records of the guest's log in this volume, once

Printed are objects with `t`, the time when the answer was there, and `f`, when the question was sent:
  {"osdmap": {"epoch", "up": [0, 1], "barred": ["10.102.0.1:0/123", ...]}}        when it has changed
  {"quorum": ["hv1", ...]}                                                        when it has changed
  {"image", "record": {"n", "tag", "base", "alien"}, "volume": "rbd_data.12"}     when it has changed
  {"image", "locks": [address, ...], "watchers": [address, ...]}                  when it has changed
  {"image", "gone": true}                                                         the volume was removed
  {"audit": id, "records": [[n, tag, base, alien], ...]}
"""

import json
import struct
import sys
import threading
import time

import rados
import rbd

RECORD = struct.Struct("<4I")
SECTOR = 512
# The guest's log: see tiny.asm.
FIRST, SLOTS = 64, 16384
OBJECT_BYTES = 4 << 20
LOOK_SECONDS = 0.1
USERS_SECONDS = 1.0
MAP_SECONDS = 0.25
# A monitor that died is noticed by the next question; the one after goes to another.
MON_TIMEOUT_SECONDS = 4

writing = threading.Lock()


def say(f, **what):
    line = json.dumps({"t": time.time(), "f": f, **what}, separators=(",", ":"))
    with writing:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def ask(cluster, prefix):
    code, out, _ = cluster.mon_command(
        json.dumps({"prefix": prefix, "format": "json"}), b"", timeout=MON_TIMEOUT_SECONDS
    )
    return json.loads(out) if code == 0 else None


def watch_map(cluster):
    before = None
    while True:
        f = time.time()
        try:
            dump = ask(cluster, "osd dump")
        except rados.Error:
            dump = None
        if dump is not None:
            seen = {
                "epoch": dump["epoch"],
                "up": [osd["osd"] for osd in dump["osds"] if osd["up"]],
                "barred": sorted(dump["blocklist"]),
            }
            # An epoch in which nothing else has changed says nothing.
            told = (seen["up"], seen["barred"])
            if told != before:
                before = told
                say(f, osdmap=seen)
            else:
                say(f, same=True)
        time.sleep(max(0.0, MAP_SECONDS - (time.time() - f)))


def watch_quorum(cluster):
    before = None
    while True:
        f = time.time()
        try:
            status = ask(cluster, "quorum_status")
        except rados.Error:
            status = None
        if status is not None and status["quorum_names"] != before:
            before = status["quorum_names"]
            say(f, quorum=before)
        time.sleep(max(0.0, MAP_SECONDS - (time.time() - f)))


class Volume(threading.Thread):
    """Looks at one volume; a thread of its own, since a look stands still while its OSD is dead."""

    def __init__(self, cluster, name):
        super().__init__(daemon=True)
        self.name_, self.image = name, name.split("/")[1]
        self.ioctx = cluster.open_ioctx(name.split("/")[0])
        self.listing = cluster.open_ioctx(name.split("/")[0])
        self.prefix = None
        threading.Thread(target=self.watch_users, daemon=True).start()

    def resolve(self):
        with rbd.Image(self.ioctx, self.image, read_only=True) as image:
            self.prefix = image.stat()["block_name_prefix"]

    def run(self):
        before = None
        while True:
            f = time.time()
            try:
                if self.prefix is None:
                    self.resolve()
                data = self.ioctx.read(self.prefix + ".%016x" % 0, RECORD.size, SECTOR)
                record = RECORD.unpack(data.ljust(RECORD.size, b"\0"))
                if record != before:
                    before = record
                    keys = ("n", "tag", "base", "alien")
                    say(f, image=self.name_, volume=self.prefix, record=dict(zip(keys, record)))
            except (rbd.ImageNotFound, rados.ObjectNotFound):
                if before is not None:
                    say(f, image=self.name_, gone=True)
                before, self.prefix = None, None
                time.sleep(0.5)
            except (rbd.Error, rados.Error) as error:
                say(f, trouble=f"{self.name_}: {error}")
                time.sleep(1)
            time.sleep(max(0.0, LOOK_SECONDS - (time.time() - f)))

    def watch_users(self):
        before = None
        while True:
            f = time.time()
            try:
                with rbd.Image(self.listing, self.image, read_only=True) as image:
                    lockers = image.list_lockers()
                    locks = sorted(locker[2] for locker in lockers.get("lockers", [])) if lockers else []
                    watchers = sorted(watcher["addr"] for watcher in image.watchers_list())
                if (locks, watchers) != before:
                    before = (locks, watchers)
                    say(f, image=self.name_, locks=locks, watchers=watchers)
            except (rbd.ImageNotFound, rados.ObjectNotFound):
                before = None
            except (rbd.Error, rados.Error) as error:
                say(f, trouble=f"{self.name_}: {error}")
            time.sleep(max(0.0, USERS_SECONDS - (time.time() - f)))

    def audit(self, number):
        f = time.time()
        records = []
        try:
            if self.prefix is None:
                self.resolve()
            end = (FIRST + SLOTS) * SECTOR
            data = b""
            while len(data) < end:
                try:
                    part = self.ioctx.read(
                        self.prefix + ".%016x" % (len(data) // OBJECT_BYTES), OBJECT_BYTES, 0
                    )
                except rados.ObjectNotFound:
                    part = b""  # nobody wrote there
                data += part.ljust(OBJECT_BYTES, b"\0")
            for slot in range(SLOTS):
                record = RECORD.unpack_from(data, (FIRST + slot) * SECTOR)
                if record[0]:
                    records.append(record)
        except (rbd.Error, rados.Error) as error:
            say(f, audit=number, trouble=str(error))
            return
        say(f, audit=number, records=sorted(records))


def main():
    cluster = rados.Rados(name="client.admin", conf=json.loads(sys.stdin.readline()))
    cluster.connect()
    threading.Thread(target=watch_map, args=(cluster,), daemon=True).start()
    threading.Thread(target=watch_quorum, args=(cluster,), daemon=True).start()
    volumes = {}
    say(time.time(), ready=True)
    for line in sys.stdin:
        order = json.loads(line)
        name = order.get("watch") or order["audit"]
        if name not in volumes:
            volumes[name] = Volume(cluster, name)
            volumes[name].start()
        if "audit" in order:
            threading.Thread(
                target=volumes[name].audit, args=(order["id"],), daemon=True
            ).start()


main()
