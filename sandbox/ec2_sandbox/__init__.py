"""A simulated EC2 and instance metadata service whose EBS volumes are real block devices.

The names below are the public interface: start a `Sandbox`, send AWS clients to it, inject
faults, look at what was called. Everything else may change.
"""

from ec2_sandbox.client import Sandbox, SandboxControl, SandboxState, VolumeSeen
from ec2_sandbox.errors import HostUnfit, InputInvalid, SandboxError
from ec2_sandbox.faults import FaultKind, FaultRule
from ec2_sandbox.journal import Call
from ec2_sandbox.settings import SandboxSettings

__version__ = "0.1.0"

__all__ = [
    "Call",
    "FaultKind",
    "FaultRule",
    "HostUnfit",
    "InputInvalid",
    "Sandbox",
    "SandboxControl",
    "SandboxError",
    "SandboxSettings",
    "SandboxState",
    "VolumeSeen",
    "__version__",
]
