"""Volumes of an older autoscaler become ours, by the operator's explicit wish."""

from dataclasses import replace

from ebs_autoscale.errors import EbsAutoscaleError
from ebs_autoscale.model import Inventory, Reading
from ebs_autoscale.policy.decision import next_growth
from ebs_autoscale.resize.ports import World


def adopt_predecessors(reading: Reading, inventory: Inventory, world: World) -> Inventory:
    """Claim those that are members of this filesystem, and those that are nowhere.

    From there they are volumes like any other: counted by the limits, protected, and one
    that is loose is attached and added if it is proved blank. Those attached elsewhere,
    or used by something else here, are left alone; where EC2 lets us tag none, the next look
    goes on. Returns the inventory with those adopted.
    """
    for volume in world.cloud.predecessors():
        node = world.nodes.node_of(volume) if volume.attached_to else ""
        is_loose = volume.state == "available" and not volume.attached_to
        if not is_loose and not reading.has_member(node):
            continue
        claimed = replace(volume, growth=next_growth(reading, inventory), node=node)
        try:
            world.cloud.claim(claimed)
        except EbsAutoscaleError as error:
            # Space matters more than whose volume it is, and the others would fare alike.
            world.warn(volume, f"{volume.id} is not adopted: {error}", error.cause)
            break
        world.tell(claimed, f"adopted {volume.id} of an older autoscaler")
        inventory = replace(inventory, volumes=(*inventory.volumes, claimed))
    return inventory
