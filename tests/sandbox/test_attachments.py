"""Attaching and detaching volumes, and terminating the instance."""

import pytest

from tests.sandbox.conftest import Rig, Start, refused


def test_attaching_comes_before_attached(start: Start) -> None:
    """A volume is in-use at once and attached after the configured time."""
    rig = start(attach_seconds=(3, 3))
    volume_id = rig.create()
    rig.control.advance(1)
    rig.attach(volume_id)
    rig.control.advance(2.9)
    volume = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    assert (volume["State"], volume["Attachments"][0]["State"]) == ("in-use", "attaching")
    rig.control.advance(0.1)
    volume = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
    assert (volume["State"], volume["Attachments"][0]["State"]) == ("in-use", "attached")


def test_both_views_agree(rig: Rig) -> None:
    """DescribeVolumes and DescribeInstances agree on an attachment."""
    volume_id = rig.attached("/dev/sdf")
    attachment = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]["Attachments"][0]
    instance = rig.ec2.describe_instances()["Reservations"][0]["Instances"][0]
    mapping = {each["DeviceName"]: each["Ebs"] for each in instance["BlockDeviceMappings"]}
    assert mapping["/dev/sdf"] == {
        "VolumeId": volume_id,
        "Status": attachment["State"],
        "AttachTime": attachment["AttachTime"],
        "DeleteOnTermination": attachment["DeleteOnTermination"],
    }
    assert attachment["InstanceId"] == instance["InstanceId"]


def test_the_root_volume_is_there(rig: Rig) -> None:
    """The root volume is deleted with the instance and cannot be detached."""
    instance = rig.ec2.describe_instances()["Reservations"][0]["Instances"][0]
    (mapping,) = instance["BlockDeviceMappings"]
    assert (mapping["DeviceName"], mapping["Ebs"]["DeleteOnTermination"]) == ("/dev/xvda", True)
    with refused("OperationNotPermitted"):
        rig.ec2.detach_volume(VolumeId=mapping["Ebs"]["VolumeId"])


def test_attach_wants_an_available_volume(start: Start) -> None:
    """A creating volume is in the wrong state, an attached one in use."""
    rig = start(create_seconds=(1, 1))
    volume_id = rig.create()
    with refused("IncorrectState", saying="is not 'available'"):
        rig.attach(volume_id)
    rig.control.advance(1)
    rig.attach(volume_id)
    with refused("VolumeInUse", saying="already attached"):
        rig.attach(volume_id, "/dev/xvdbb")


def test_attach_wants_the_instance(rig: Rig) -> None:
    """An unknown and a malformed instance id have different errors."""
    volume_id = rig.create()
    with refused("InvalidInstanceID.NotFound"):
        rig.ec2.attach_volume(VolumeId=volume_id, InstanceId="i-00000000", Device="/dev/sdf")
    with refused("InvalidInstanceID.Malformed"):
        rig.ec2.attach_volume(VolumeId=volume_id, InstanceId="me", Device="/dev/sdf")


@pytest.mark.parametrize(
    "device",
    ["/dev/sdf", "/dev/sdz", "/dev/xvdf", "/dev/xvdaa", "/dev/xvdba", "/dev/xvdcz", "/dev/xvddx"],
)
def test_takes_names_that_ec2_takes(rig: Rig, device: str) -> None:
    """Documented device names are accepted, and the undocumented ones that EC2 accepts."""
    volume_id = rig.attached(device)
    seen = rig.seen(volume_id)
    assert (seen.device, seen.attachment_state) == (device, "attached")


@pytest.mark.parametrize(
    "device", ["/dev/xvddy", "/dev/xvdea", "/dev/sdf1", "/dev/nvme1n1", "foo", "/dev/sdaa", "/dev/"]
)
def test_refuses_names_that_ec2_refuses(rig: Rig, device: str) -> None:
    """An invalid device name is refused with the message of EC2."""
    volume_id = rig.create()
    with refused("InvalidParameterValue", saying=f"{device} is not a valid EBS device name"):
        rig.attach(volume_id, device)


def test_a_name_is_taken_once(start: Start) -> None:
    """Names in use, shown or hidden, are refused with the message that clients match."""
    rig = start(hidden_device_names=("/dev/xvdbb",))
    rig.attached("/dev/xvdba")
    second = rig.create()
    for device in ("/dev/xvdba", "/dev/xvdbb", "/dev/xvda"):
        words = (
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use"
        )
        with refused("InvalidParameterValue", saying=words):
            rig.attach(second, device)


@pytest.mark.parametrize(
    ("kind", "interfaces", "slots"), [("shared", 1, 4), ("shared", 3, 2), ("dedicated", 3, 4)]
)
def test_slots_are_limited(start: Start, kind: str, interfaces: int, slots: int) -> None:
    """The root volume and, if the limit is shared, further network interfaces use slots."""
    rig = start(attachment_limit=4, attachment_limit_type=kind, network_interfaces=interfaces)
    for number in range(slots - 1):
        rig.attached(f"/dev/xvdb{'abcd'[number]}")
    one_more = rig.create()
    rig.control.advance(1)
    with refused("AttachmentLimitExceeded"):
        rig.attach(one_more, "/dev/xvdbz")


def test_delete_on_termination_is_set_after_attaching(start: Start) -> None:
    """It is false, cannot be set while attaching, and then appears in both Describe actions."""
    rig = start(attach_seconds=(1, 1))
    volume_id = rig.create()
    rig.control.advance(1)
    rig.attach(volume_id)
    mappings = [{"DeviceName": "/dev/xvdba", "Ebs": {"DeleteOnTermination": True}}]

    def flags() -> tuple[bool, bool]:
        volume = rig.ec2.describe_volumes(VolumeIds=[volume_id])["Volumes"][0]
        instance = rig.ec2.describe_instances()["Reservations"][0]["Instances"][0]
        return (
            volume["Attachments"][0]["DeleteOnTermination"],
            instance["BlockDeviceMappings"][1]["Ebs"]["DeleteOnTermination"],
        )

    def set_flag() -> None:
        rig.ec2.modify_instance_attribute(
            InstanceId=rig.settings.instance_id,
            BlockDeviceMappings=mappings,  # type: ignore[arg-type] # a plain dict is one
        )

    with refused("InvalidInstanceAttributeValue", saying="No device is currently mapped at"):
        set_flag()
    rig.control.advance(1)
    assert flags() == (False, False)
    set_flag()
    assert flags() == (True, True)


def test_delete_on_termination_is_meant_unless_said(rig: Rig) -> None:
    """A mapping without a value sets the flag, as the EC2 API reference says."""
    volume_id = rig.attached()
    rig.ec2.modify_instance_attribute(
        InstanceId=rig.settings.instance_id,
        BlockDeviceMappings=[{"DeviceName": "/dev/xvdba", "Ebs": {"VolumeId": volume_id}}],
    )
    assert rig.seen(volume_id).delete_on_termination


def test_delete_on_termination_names_its_volume(rig: Rig) -> None:
    """A mapping that names another volume than the device has is refused."""
    rig.attached()
    with refused("InvalidInstanceAttributeValue"):
        rig.ec2.modify_instance_attribute(
            InstanceId=rig.settings.instance_id,
            BlockDeviceMappings=[
                {"DeviceName": "/dev/xvdba", "Ebs": {"VolumeId": "vol-0123456789abcdef0"}}
            ],
        )


def test_other_attributes_are_not_played(rig: Rig) -> None:
    """Attributes that the sandbox does not support are refused."""
    with refused("UnsupportedOperation", saying="DisableApiTermination"):
        rig.ec2.modify_instance_attribute(
            InstanceId=rig.settings.instance_id, DisableApiTermination={"Value": True}
        )


def test_detach_takes_its_time(start: Start) -> None:
    """Detaching, then available without an attachment; the name is free again."""
    rig = start(detach_seconds=(2, 2))
    volume_id = rig.attached()
    rig.ec2.detach_volume(VolumeId=volume_id)
    seen = rig.seen(volume_id)
    assert (seen.state, seen.attachment_state) == ("in-use", "detaching")
    with refused("IncorrectState"):
        rig.ec2.detach_volume(VolumeId=volume_id)
    rig.control.advance(2)
    seen = rig.seen(volume_id)
    assert (seen.state, seen.device) == ("available", "")
    rig.attach(volume_id)


def test_detach_wants_what_it_names(rig: Rig) -> None:
    """A detach that does not match the attachment is refused."""
    volume_id = rig.create()
    rig.control.advance(1)
    with refused("IncorrectState", saying="'available' state"):
        rig.ec2.detach_volume(VolumeId=volume_id)
    rig.attach(volume_id)
    with refused("InvalidAttachment.NotFound"):
        rig.ec2.detach_volume(VolumeId=volume_id, Device="/dev/xvdbb")
    with refused("InvalidAttachment.NotFound"):
        rig.ec2.detach_volume(VolumeId=volume_id, InstanceId="i-00000000")


def test_termination_honours_its_flag(start: Start) -> None:
    """Volumes with DeleteOnTermination are deleted with the instance, others stay available."""
    rig = start(terminate_seconds=(5, 5))
    doomed, spared = rig.attached("/dev/xvdba"), rig.attached("/dev/xvdbb")
    rig.ec2.modify_instance_attribute(
        InstanceId=rig.settings.instance_id,
        BlockDeviceMappings=[{"DeviceName": "/dev/xvdba", "Ebs": {"DeleteOnTermination": True}}],
    )
    (change,) = rig.ec2.terminate_instances(InstanceIds=[rig.settings.instance_id])[
        "TerminatingInstances"
    ]
    states = (change["PreviousState"]["Name"], change["CurrentState"]["Name"])
    assert states == ("running", "shutting-down")
    rig.control.advance(5)
    rig.control.advance(1)
    instance = rig.ec2.describe_instances()["Reservations"][0]["Instances"][0]
    assert (instance["State"]["Name"], instance["BlockDeviceMappings"]) == ("terminated", [])
    assert rig.is_gone(doomed)
    seen = rig.seen(spared)
    assert seen.state == "available"
    with refused("IncorrectState", saying="is not 'running'"):
        rig.attach(spared)
