"""Create an EBS volume, use its block device, detach and delete it: as on an EC2 instance."""

import subprocess
import time
from pathlib import Path

import boto3

ec2 = boto3.client("ec2")
instance = ec2.describe_instances()["Reservations"][0]["Instances"][0]
wait_until_available = ec2.get_waiter("volume_available").wait
every_second = {"Delay": 1, "MaxAttempts": 60}

volume_id = ec2.create_volume(
    AvailabilityZone=instance["Placement"]["AvailabilityZone"], Size=1, VolumeType="gp3"
)["VolumeId"]
wait_until_available(VolumeIds=[volume_id], WaiterConfig=every_second)
print(f"created {volume_id}")

ec2.attach_volume(VolumeId=volume_id, InstanceId=instance["InstanceId"], Device="/dev/sdf")
device = Path("/dev/disk/by-id") / ("nvme-Amazon_Elastic_Block_Store_" + volume_id.replace("-", ""))
while not device.is_block_device():
    time.sleep(0.1)
print(f"attached {volume_id} as {device.resolve()}")

subprocess.run(["mkfs.ext4", "-q", device], check=True)
print(subprocess.check_output(["blkid", device], text=True), end="")

ec2.detach_volume(VolumeId=volume_id)
wait_until_available(VolumeIds=[volume_id], WaiterConfig=every_second)
ec2.delete_volume(VolumeId=volume_id)
print(f"detached and deleted {volume_id}")
