"""What is not EC2: who calls, public parameters, the price list, quotas."""

from __future__ import annotations

import json
from typing import Any

from doubles.aws import catalogue
from doubles.aws.wire import AwsError
from doubles.aws.world import Params, Thing, World, action, page


@action("sts:GetCallerIdentity")
def caller(world: World, params: Params) -> Thing:
    return {
        "UserId": "AIDATESTING",
        "Account": world.account,
        "Arn": f"arn:aws:iam::{world.account}:user/tester",
    }


@action("ssm:GetParameter")
def parameter(world: World, params: Params) -> Thing:
    found = _parameters(world, [params["Name"]])
    if not found:
        raise AwsError("ParameterNotFound", "")
    return {"Parameter": found[0]}


@action("ssm:GetParameters")
def parameters(world: World, params: Params) -> Thing:
    names = params["Names"]
    if len(names) > 10:
        words = "Member must have length less than or equal to 10"
        raise AwsError("ValidationException", words)
    found = _parameters(world, names)
    there = {one["Name"] for one in found}
    return {"Parameters": found, "InvalidParameters": [one for one in names if one not in there]}


@action("ssm:GetParametersByPath")
def by_path(world: World, params: Params) -> Thing:
    path = params["Path"].rstrip("/") + "/"
    known = catalogue.parameters(world.region)
    names = [
        name
        for name in sorted(known)
        if name.startswith(path) and (params.get("Recursive") or "/" not in name[len(path) :])
    ]
    found, more = page(params, _parameters(world, names), 10)
    return {"Parameters": found, "NextToken": more}


def _parameters(world: World, names: list[str]) -> list[Thing]:
    known = {**catalogue.parameters(world.region), **world.aws.parameters}
    return [
        {
            "Name": name,
            "Type": "String",
            "Value": known[name],
            "Version": 7,
            "DataType": "aws:ec2:image",
            "ARN": f"arn:aws:ssm:{world.region}::parameter{name}",
        }
        for name in names
        if name in known
    ]


# -- prices ----------------------------------------------------------------------------------------


@action("pricing:GetProducts")
def products(world: World, params: Params) -> Thing:
    """The Price List's service is in three regions only, whatever region is asked about."""
    if world.region not in ("us-east-1", "eu-central-1", "ap-south-1"):
        raise AwsError("UnknownEndpoint", f"there is no pricing service in {world.region}", 404)
    if (params.get("MaxResults") or 100) > 100:
        raise AwsError("InvalidParameterException", "MaxResults must be between 1 and 100.")
    asked = params.get("Filters") or []
    for one in asked:
        if one["Type"] != "TERM_MATCH" and one["Type"] not in ("EQUALS", "CONTAINS", "ANY_OF"):
            words = f"Input Parameters are invalid. Filter type {one['Type']}"
            raise AwsError("InvalidParameterException", words)
    found = [
        json.dumps(one)
        for one in world.aws.products()
        if one["serviceCode"] == params["ServiceCode"] and all(_has(one, said) for said in asked)
    ]
    found, more = page(params, found, 100)
    return {"FormatVersion": "aws_v1", "PriceList": found, "NextToken": more}


def _has(product: Thing, said: Params) -> bool:
    inner = product["product"]
    known = {**inner["attributes"], "productFamily": inner["productFamily"], "sku": inner["sku"]}
    known["ServiceCode"] = product["serviceCode"]
    value = str(known.get(said["Field"], ""))
    if said["Type"] == "CONTAINS":
        return str(said["Value"]).lower() in value.lower()
    if said["Type"] == "ANY_OF":
        return value.lower() in str(said["Value"]).lower().split(",")
    return value.lower() == str(said["Value"]).lower()


# -- quotas ----------------------------------------------------------------------------------------


@action("servicequotas:GetServiceQuota", "servicequotas:GetAWSDefaultServiceQuota")
def quota(world: World, params: Params) -> Thing:
    code = params["QuotaCode"]
    if params["ServiceCode"] != "ec2" or code not in world.aws.quotas:
        words = "The request failed because the specified service or quota does not exist."
        raise AwsError("NoSuchResourceException", words)
    return {"Quota": _quota(world, code)}


@action("servicequotas:ListServiceQuotas")
def quotas(world: World, params: Params) -> Thing:
    if params["ServiceCode"] != "ec2":
        words = "The request failed because the specified service does not exist."
        raise AwsError("NoSuchResourceException", words)
    codes = sorted(code for code, value in world.aws.quotas.items() if value is not None)
    found, more = page(params, [_quota(world, code) for code in codes], 100)
    return {"Quotas": found, "NextToken": more}


def _quota(world: World, code: str) -> dict[str, Any]:
    arn = f"arn:aws:servicequotas:{world.region}:{world.account}:ec2/{code}"
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": arn,
        "QuotaCode": code,
        "QuotaName": catalogue.QUOTA_NAMES[code],
        "Value": float(world.aws.quotas[code]),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
