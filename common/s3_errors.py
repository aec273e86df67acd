"""The errors of boto3, and which of ours each of them is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConfigParseError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from urllib3.exceptions import HTTPError

from common.outages import Changed, Missing, Outage, Refused

#: Answers to which a later attempt may get another one; a clock that jumped is corrected, and what
#: was changed on the way is sent again, as is a large file: the answer that ended its upload may
#: have been lost, and botocore has asked again. An answer without a body has its status for a code.
_TRANSIENT = {
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "RequestLimitExceeded",
    "TooManyRequests",
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
    "RequestTimeTooSkewed",
    "409",
    "OperationAborted",
    "KMS.ThrottlingException",
    "IDPCommunicationError",
    "NoSuchUpload",
    "InvalidPart",
    "InvalidPartOrder",
}

#: Answers to credentials that have expired, or were replaced by others.
_OLD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidIdentityToken",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}


class CredentialsRefused(Outage):
    """Raised when S3 does not take the credentials any more; others may be there soon."""


@contextmanager
def foreign_errors_named(what: str) -> Iterator[None]:
    """Turn errors of boto3 inside the block into ours."""
    try:
        yield
    except ClientError as error:
        # S3's own message can name accounts.
        code = error.response.get("Error", {}).get("Code", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in {"NoSuchKey", "404", "NotFound"}:
            raise Missing(f"S3 does not have {what}") from error
        if code in {"PreconditionFailed", "412", "ConditionalRequestConflict"}:
            raise Changed(f"{what} was changed meanwhile") from error
        # 501: it will not implement a setting such as S3_SSE while we wait.
        is_for_now = (status >= 500 and status != 501) or status in {408, 425, 429}
        if is_for_now or code in _TRANSIENT:
            raise Outage(f"S3 answered {status} {code}") from error
        if code in _OLD_CREDENTIALS:
            raise CredentialsRefused(
                f"S3 refused {what}: {code}; renew the credentials (those in the environment need "
                "a restart)"
            ) from error
        if code in {"301", "PermanentRedirect"}:
            code = "PermanentRedirect (the bucket is in another region; set AWS_REGION)"
        shown = "AccessDenied" if code == "403" else code
        raise Refused(f"S3 refused {what}: {shown}") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise CredentialsRefused(
            "there are no credentials for S3 (set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        ) from error
    except ParamValidationError as error:
        raise Refused(f"{what} has a name that is not valid in S3") from error
    # Botocore lets urllib3's own through where the answer that says what failed is cut off.
    except (BotoCoreError, HTTPError) as error:
        raise Outage(f"S3 cannot be reached ({type(error).__name__})") from error


def bad_setting(error: BotoCoreError) -> str:
    """Return which of boto3's own settings *error* is about, its value, and what is wrong."""
    if isinstance(error, ProfileNotFound):
        return f"AWS_PROFILE: {error.kwargs['profile']!r}: no such profile"
    if isinstance(error, ConfigParseError):
        return f"AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE: {error.kwargs['path']}: not readable"
    return f"AWS_*: {error}"
