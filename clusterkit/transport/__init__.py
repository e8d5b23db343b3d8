"""Run a command, move files, here or elsewhere: the only package that starts processes.

A `Connection` is what `cluster.connect` hands to `sweep` and `harvest`: a transport and where
things are. They know nothing of clouds.
"""

from clusterkit.transport.address import Address, control_folder, options
from clusterkit.transport.base import (
    Completed,
    Connection,
    Content,
    Limits,
    Stream,
    Transport,
)
from clusterkit.transport.local import Local
from clusterkit.transport.ssh import Mend, Ssh

__all__ = [
    "Address",
    "Completed",
    "Connection",
    "Content",
    "Limits",
    "Local",
    "Mend",
    "Ssh",
    "Stream",
    "Transport",
    "control_folder",
    "options",
]
