"""The demo of ebs-autoscale: the installed program, real BTRFS and a simulated EC2.

It uses `ebs-autoscale` as an operator does, by its command line, its log and its status file,
and imports nothing of it.
"""
