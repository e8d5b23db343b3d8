"""AWS's protocols both ways, after AWS's own published models, which botocore brings.

A request becomes a `Request` with typed parameters, or an `AwsError` as AWS would send it; an
answer in AWS's words becomes bytes. The double must not depend on the client being botocore, so
everything that botocore checks before it sends is checked again here.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import io
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote
from xml.sax.saxutils import escape

from botocore.serialize import create_serializer
from botocore.validate import ParamValidator
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import EC2QueryParser, QueryParser
from moto.core.serialize import SerializationContext, get_serializer_class
from moto.core.utils import get_service_model

#: The names in signatures that differ from the names of botocore's models.
_MODELS = {"servicequotas": "service-quotas"}
#: Seconds that a request's date may be off (docs.aws.amazon.com, "Signature Version 4").
_SKEW = 300.0
_BAD_CREDENTIALS = "AWS was not able to validate the provided access credentials"


class AwsError(Exception):
    """An error that AWS answers with: its code, its words, its HTTP status."""

    def __init__(self, code: str, words: str, status: int = 400) -> None:
        super().__init__(f"{code}: {words}")
        self.code = code
        self.words = words
        self.status = status


@dataclass(frozen=True, slots=True)
class Request:
    """A call of the API: `service` as in signatures and IAM's actions ("ec2", "servicequotas")."""

    service: str
    action: str
    region: str
    key: str  # the access key's id
    params: Mapping[str, Any]
    model: OperationModel
    problem: AwsError | None = None  # what is wrong with its parameters


@dataclass(slots=True)
class Raw:
    """An HTTP request as it came, and whose service it claims to be for."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    service: str = ""
    region: str = ""
    key: str = ""
    action: str = "?"
    signed: tuple[str, ...] = ()
    signature: str = ""
    date: str = ""
    form: dict[str, str] = field(default_factory=dict)


def raw(environ: Mapping[str, Any], body: bytes) -> Raw:
    """What a WSGI environment holds. Raises AwsError where it is not signed at all."""
    headers = {
        name[5:].replace("_", "-").lower(): str(value)
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = str(environ.get("CONTENT_TYPE", ""))
    path = quote(str(environ.get("PATH_INFO", "/")), safe="/-_.~")
    query = str(environ.get("QUERY_STRING", ""))
    found = Raw(str(environ["REQUEST_METHOD"]), path, query, headers, body)
    target = headers.get("x-amz-target", "")
    if target:
        found.action = target.rpartition(".")[2]
    else:
        pairs = parse_qsl(query, keep_blank_values=True)
        pairs += parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        found.form = dict(pairs)
        found.action = found.form.get("Action", "?")
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([^/]+)/aws4_request, *"
        r"SignedHeaders=([^,]+), *Signature=([0-9a-f]+)",
        headers.get("authorization", ""),
    )
    if match is None:
        found.service = "ec2"
        return found
    found.key, found.date, found.region, found.service = match.group(1, 2, 3, 4)
    found.signed, found.signature = tuple(match[5].split(";")), match[6]
    return found


def check_signature(one: Raw, secrets: Mapping[str, str], regions: frozenset[str]) -> None:
    """Raise AwsError, in the words of the service that was called."""
    if not one.signature:
        raise AwsError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    if one.key not in secrets:
        raise _unknown_key(one.service)
    if one.region not in regions:
        raise AwsError(
            "AuthFailure" if one.service == "ec2" else "SignatureDoesNotMatch",
            f"Credential should be scoped to a valid region, not '{one.region}'.",
            403,
        )
    when = one.headers.get("x-amz-date", "")
    try:
        sent = datetime.strptime(when, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise AwsError("IncompleteSignature", f"Date must be in ISO-8601: '{when}'") from None
    if abs((datetime.now(UTC) - sent).total_seconds()) > _SKEW:
        if one.service == "ec2":
            raise AwsError("RequestExpired", "Request has expired.")
        raise AwsError("SignatureDoesNotMatch", f"Signature expired: {when} is now earlier", 403)
    if not hmac.compare_digest(_signature(one, secrets[one.key], when), one.signature):
        if one.service == "ec2":
            raise AwsError("AuthFailure", _BAD_CREDENTIALS, 401)
        words = (
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method. Consult the service documentation for "
            "details."
        )
        if one.service == "sts":
            raise AwsError("SignatureDoesNotMatch", words, 403)
        raise AwsError("InvalidSignatureException", words)


def parse(one: Raw) -> Request:
    """The call. Its parameters' problems are noted in it, not raised. Raises AwsError otherwise."""
    try:
        model = service_model(one.service)
    except Exception:
        raise AwsError("UnknownEndpoint", f"no such service: {one.service}", 404) from None
    if one.action not in model.operation_names:
        words = f"The action {one.action} is not valid for this web service."
        raise AwsError("InvalidAction", words)
    operation = model.operation_model(one.action)
    problem: AwsError | None = None
    params: Mapping[str, Any] = {}
    try:
        if model.metadata["protocol"] in ("ec2", "query"):
            params = _query(operation, one.form)
        else:
            params = json.loads(one.body or b"{}")
            unknown = set(params) - set(_members(operation))
            if unknown:
                raise AwsError("SerializationException", f"unknown field {min(unknown)}")
        _check(operation, params)
    except AwsError as error:
        problem = error
    return Request(one.service, one.action, one.region, one.key, params, operation, problem)


def answer(request: Request, result: Mapping[str, Any]) -> tuple[int, str, bytes]:
    """HTTP status, content type and body of what is answered."""
    service = request.model.service_model
    kind = get_serializer_class(service.service_name, service.metadata["protocol"])
    context = SerializationContext(str(uuid.uuid4()))
    done = kind(request.model, context).serialize(result)
    body = done["body"]
    content = body.encode() if isinstance(body, str) else body
    content_type = done["headers"].get("Content-Type", "text/xml")
    return int(done["status_code"]), content_type, content


def refusal(service: str, error: AwsError) -> tuple[int, str, bytes]:
    """HTTP status, content type and body of an error, as the service writes them."""
    code, words, rid = escape(error.code), escape(error.words), uuid.uuid4()
    if service == "ec2":
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Response><Errors><Error>'
            f"<Code>{code}</Code><Message>{words}</Message></Error></Errors>"
            f"<RequestID>{rid}</RequestID></Response>"
        )
        return error.status, "text/xml;charset=UTF-8", text.encode()
    if service in ("sts", "iam"):
        side = "Receiver" if error.status >= 500 else "Sender"
        text = (
            f"<ErrorResponse><Error><Type>{side}</Type><Code>{code}</Code>"
            f"<Message>{words}</Message></Error><RequestId>{rid}</RequestId></ErrorResponse>"
        )
        return error.status, "text/xml", text.encode()
    said = {"__type": error.code, "message": error.words}
    return error.status, "application/x-amz-json-1.1", json.dumps(said).encode()


def environ(base: Mapping[str, Any], body: bytes) -> dict[str, Any]:
    """The same WSGI request once more, for the application behind."""
    again = dict(base)
    again["wsgi.input"] = io.BytesIO(body)
    again["CONTENT_LENGTH"] = str(len(body))
    return again


@functools.cache
def service_model(service: str) -> ServiceModel:
    return get_service_model(_MODELS.get(service, service))


def _members(operation: OperationModel) -> Mapping[str, Any]:
    return operation.input_shape.members if operation.input_shape else {}


def _query(operation: OperationModel, form: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of a query; what is not in the model is refused."""
    protocol = operation.service_model.metadata["protocol"]
    parser = EC2QueryParser if protocol == "ec2" else QueryParser
    try:
        params = parser(operation).parse({"values": form})  # type: ignore[typeddict-item]
    except (ValueError, TypeError) as error:
        raise AwsError("InvalidParameterValue", f"Invalid value: {error}") from error
    sent = create_serializer(protocol, include_validation=False)
    known = sent.serialize_to_request(params, operation)["body"]
    for name in form:
        if name not in known:
            raise AwsError("UnknownParameter", f"The parameter {name} is not recognized")
    return dict(params)


def _check(operation: OperationModel, params: Mapping[str, Any]) -> None:
    if operation.input_shape is None:
        return
    report = ParamValidator().validate(params, operation.input_shape)
    if not report.has_errors():
        return
    words = report.generate_report().splitlines()[0]
    missing = re.search(r'Missing required parameter in .*"(\w+)"', words)
    if operation.service_model.metadata["protocol"] not in ("ec2", "query"):
        raise AwsError("ValidationException", words)
    if missing:
        raise AwsError("MissingParameter", f"The request must contain the parameter {missing[1]}")
    raise AwsError("InvalidParameterValue", words)


def _unknown_key(service: str) -> AwsError:
    if service == "ec2":
        return AwsError("AuthFailure", _BAD_CREDENTIALS, 401)
    words = "The security token included in the request is invalid."
    if service in ("sts", "iam"):
        return AwsError("InvalidClientTokenId", words, 403)
    return AwsError("UnrecognizedClientException", words)


def _signature(one: Raw, secret: str, when: str) -> str:
    """Signature Version 4, calculated anew (docs.aws.amazon.com, "Create a signed request")."""
    pairs = sorted(parse_qsl(one.query, keep_blank_values=True))
    query = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in pairs)
    headers = "".join(
        f"{name}:{' '.join(one.headers.get(name, '').split())}\n" for name in one.signed
    )
    payload = hashlib.sha256(one.body).hexdigest()
    canonical = "\n".join([one.method, one.path, query, headers, ";".join(one.signed), payload])
    scope = f"{one.date}/{one.region}/{one.service}/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, f"AWS4-HMAC-SHA256\n{when}\n{scope}\n{hashed}".encode(), "sha256").hex()
