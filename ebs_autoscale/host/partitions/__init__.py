"""The last partition of a block device, extended while its filesystem is mounted."""

from ebs_autoscale.host.partitions.growing import grow, require_growable
from ebs_autoscale.host.partitions.kernel import Partition, partition_of

__all__ = ["Partition", "grow", "partition_of", "require_growable"]
