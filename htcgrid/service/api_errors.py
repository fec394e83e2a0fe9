"""The service's own errors, in AWS Lambda's form. Names and statuses are those of Lambda's API model."""

import json


class ServiceError(Exception):
    """An error answer of the service, not of the function."""

    status = 500
    kind = "ServiceException"
    at_fault = "Service"

    def body(self) -> bytes:
        """The document that AWS's SDKs read."""
        return json.dumps({"Type": self.at_fault, "Message": str(self)}).encode()


class _CallerError(ServiceError):
    at_fault = "User"


class InvalidRequestContent(_CallerError):
    status, kind = 400, "InvalidRequestContentException"


class InvalidParameterValue(_CallerError):
    status, kind = 400, "InvalidParameterValueException"


class MissingAuthenticationToken(_CallerError):
    status, kind = 403, "MissingAuthenticationTokenException"


class UnrecognizedClient(_CallerError):
    status, kind = 403, "UnrecognizedClientException"


class InvalidSignature(_CallerError):
    status, kind = 403, "InvalidSignatureException"


class AccessDenied(_CallerError):
    status, kind = 403, "AccessDeniedException"


class ResourceNotFound(_CallerError):
    status, kind = 404, "ResourceNotFoundException"


class RequestTimeout(_CallerError):
    status, kind = 408, "RequestTimeoutException"


class RequestTooLarge(_CallerError):
    status, kind = 413, "RequestTooLargeException"


class UnsupportedMediaType(_CallerError):
    status, kind = 415, "UnsupportedMediaTypeException"


class TooManyRequests(_CallerError):
    status, kind = 429, "TooManyRequestsException"
