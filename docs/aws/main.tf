# Launch template, role and policy for AWS Batch or ECS, as in cloudformation.yaml beside it.
# docs/containers.md says what to do with the outputs.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "release_url" {
  description = "The release of ebs-autoscale, such as https://.../ebs-autoscale-0.1.0-linux-$(uname -m).tar.gz"
  type        = string
}

variable "release_sha256" {
  description = "Its hash from SHA256SUMS; with hosts of both architectures, those of both files"
  type        = string
}

variable "btrfs_url" {
  description = "For Amazon Linux 2023, btrfs.box.static of a release of btrfs-progs; btrfs.box.static-arm on arm64"
  type        = string
  default     = ""
}

variable "btrfs_sha256" {
  description = "Its hash"
  type        = string
  default     = ""
}

variable "hop_limit" {
  # With 1, containers with a network of their own cannot use the host's role.
  description = "2 if containers themselves need the instance metadata"
  type        = number
  default     = 1
}

locals {
  name = "ebs-autoscale-hosts"
  user_data = replace(replace(replace(replace(file("${path.module}/../../cloud-init/batch.mime"),
    "\n      URL=\n", "\n      URL=\"${var.release_url}\"\n"),
    "\n      SHA256=\n", "\n      SHA256=\"${var.release_sha256}\"\n"),
    "\n      BTRFS_URL=\n", "\n      BTRFS_URL=\"${var.btrfs_url}\"\n"),
    "\n      BTRFS_SHA256=\n", "\n      BTRFS_SHA256=\"${var.btrfs_sha256}\"\n"
  )
}

data "aws_partition" "current" {}

resource "aws_iam_role" "hosts" {
  name_prefix = local.name
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "ecs" {
  role       = aws_iam_role.hosts.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
}

# What `ebs-autoscale iam-policy` prints.
resource "aws_iam_role_policy" "ebs_autoscale" {
  name   = "ebs-autoscale"
  role   = aws_iam_role.hosts.name
  policy = file("${path.module}/policy.json")
}

resource "aws_iam_instance_profile" "hosts" {
  name_prefix = local.name
  role        = aws_iam_role.hosts.name
}

resource "aws_launch_template" "hosts" {
  name_prefix = local.name
  user_data   = base64encode(local.user_data)

  # AWS Batch has its own setting for it and ignores this one.
  iam_instance_profile {
    arn = aws_iam_instance_profile.hosts.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = var.hop_limit
  }

  # The root volume of Amazon Linux.
  block_device_mappings {
    device_name = "/dev/xvda"
    ebs {
      volume_type           = "gp3"
      encrypted             = true
      delete_on_termination = true
    }
  }

  # Only of what is created with the instance. The volumes of ebs-autoscale have the tags of its own
  # configuration (volume.tags), and must not have its owner tags from here.
  tag_specifications {
    resource_type = "instance"
    tags          = { Name = local.name }
  }
  tag_specifications {
    resource_type = "volume"
    tags          = { Name = local.name }
  }
}

output "launch_template" {
  description = "For the compute environment, or the Auto Scaling group"
  value       = aws_launch_template.hosts.id
}

output "instance_profile" {
  description = "For the compute environment (instance_role)"
  value       = aws_iam_instance_profile.hosts.arn
}
