"""A BMC for one lab node: IPMI over LAN (RMCP+) on ADDRESS, port 623; power commands really switch the node.

usage: bmc.py ADDRESS NODE GUID LAB      the password of user admin is in the environment: PVC_LAB_BMC_PASSWORD
GUID is that of the node's machine. LAB is the lab's program: `LAB lab power NODE status|on|off|cycle|soft`; status prints on or off.
"""

import os
import subprocess
import sys
import uuid

from pyghmi.ipmi import bmc

ADDRESS, NODE, GUID, LAB = sys.argv[1:5]
PORT = 623
USER = "admin"
# The longest is a boot until the node's first process runs.
DEADLINE_SECONDS = 30
NOT_SUPPORTED_IN_PRESENT_STATE = 0xD5
UNSPECIFIED_ERROR = 0xFF
# Network function and command of "Get System GUID".
GET_SYSTEM_GUID = (0x06, 0x37)


def lab(verb):
    """Carries out a power command; gives what it printed, or None if it failed."""
    try:
        done = subprocess.run(
            [LAB, "lab", "power", NODE, verb, "--no-wait"],
            stdout=subprocess.PIPE,
            timeout=DEADLINE_SECONDS,
            text=True,
            # The node that it switches on is not to have the precedence of its BMC.
            preexec_fn=lambda: os.nice(-os.nice(0)),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"{NODE}: {verb}: {error}", file=sys.stderr, flush=True)
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def change(verb):
    # Only a command that was carried out is acknowledged: fencing takes the answer as a proof.
    return None if lab(verb) is not None else UNSPECIFIED_ERROR


class NodeBmc(bmc.Bmc):
    def get_power_state(self):
        state = lab("status")
        if state not in ("on", "off"):
            raise RuntimeError(f"the power of {NODE} is not known")
        return state

    def power_on(self):
        return change("on")

    def power_off(self):
        return change("off")

    def power_reset(self):
        return self.power_cycle()

    def power_cycle(self):
        if lab("status") == "off":
            return NOT_SUPPORTED_IN_PRESENT_STATE
        return change("cycle")

    def power_shutdown(self):
        return change("soft")

    def get_boot_device(self):
        return "default"

    def handle_raw_request(self, request, session):
        # Not every release of the library knows this command.
        if (request["netfn"], request["command"]) == GET_SYSTEM_GUID:
            session.send_ipmi_response(data=list(uuid.UUID(GUID).bytes_le))
        else:
            super().handle_raw_request(request, session)


# pyghmi opens an IPv6 socket: an IPv4 address has to be written as one of IPv6.
NodeBmc({USER: os.environ["PVC_LAB_BMC_PASSWORD"]}, address=f"::ffff:{ADDRESS}", port=PORT).listen()
