"""Errors of boto3 and botocore as ours."""

from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions
import botocore.parsers

from ebs_autoscale.ec2.errors import translated
from ebs_autoscale.errors import Cause, Transient, Unfit


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Turn errors of boto3 into ours, after botocore has made its retries."""
    try:
        yield
    except botocore.exceptions.ClientError as error:
        answer, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
        raise translated(
            what,
            code=_text(answer.get("Code")),
            message=_text(answer.get("Message")).rstrip("."),
            status=about.get("HTTPStatusCode", 400),
            operation=error.operation_name,
        ) from error
    except botocore.exceptions.ParamValidationError as error:
        raise Unfit(f"{what}: {error}", cause=Cause.REQUEST) from error
    except botocore.exceptions.NoCredentialsError as error:
        hint = "check the AWS_* environment variables and ~/.aws of this user"
        raise Unfit(f"{what}: no AWS credentials", hint=hint, cause=Cause.CREDENTIALS) from error
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError) as error:
        hint = "check the path to EC2: route, NAT or VPC endpoint, security group, DNS, proxy"
        raise Transient(f"{what}: {error}", hint=hint, cause=Cause.EC2_UNREACHABLE) from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        # botocore itself raises ValueError or RuntimeError for a date or a number that is none.
        reason = f"{type(error).__name__}: {error}"
        raise Transient(
            f"{what}: EC2's answer cannot be understood: {reason:.200}", cause=Cause.EC2_ERROR
        ) from error
    except botocore.parsers.ResponseParserError as error:
        # A proxy or a captive portal answered instead of EC2.
        hint = "check whether there is a proxy between this instance and EC2"
        raise Transient(
            f"{what}: the response is not from EC2", hint=hint, cause=Cause.EC2_UNREACHABLE
        ) from error


def _text(field: object) -> str:
    """A field of an error; botocore has a dict or a list for one with elements inside."""
    return field if isinstance(field, str) else str(field or "")
