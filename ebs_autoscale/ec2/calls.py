"""A call of boto's whose errors become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions
import botocore.parsers

from ebs_autoscale.ec2.errors import translated
from ebs_autoscale.errors import Transient, Unfit


@contextmanager
def meant(what: str) -> Iterator[None]:
    """Turn boto's errors inside into ours; botocore has retried what it retries by then."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400)
        raise translated(what, code=code, message=message, status=status) from error
    except botocore.exceptions.ParamValidationError as error:
        raise Unfit(f"{what}: {error}", cause="request") from error
    except botocore.exceptions.NoCredentialsError as error:
        hint = "attach an instance profile to this instance"
        raise Unfit(f"{what}: no AWS credentials", hint=hint, cause="credentials") from error
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError) as error:
        hint = "check the way to EC2: route, NAT or VPC endpoint, security group, DNS, proxy"
        raise Transient(f"{what}: {error}", hint=hint, cause="ec2 unreachable") from error
    except botocore.parsers.ResponseParserError as error:
        # A proxy, a captive portal: somebody answers, and it is not EC2.
        hint = "is a proxy between this instance and EC2?"
        raise Transient(
            f"{what}: the answer is not EC2's", hint=hint, cause="ec2 unreachable"
        ) from error
