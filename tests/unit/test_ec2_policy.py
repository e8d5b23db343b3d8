"""The policy in the docs: every call that clusterkit can make is in it, and nothing else is."""

from __future__ import annotations

import ast
import json
from functools import cache
from pathlib import Path
from typing import Any

from botocore.session import Session

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clusterkit" / "cluster" / "providers" / "ec2"
#: IAM's name of a service -> botocore's.
SERVICES = {
    "ec2": "ec2",
    "sts": "sts",
    "ssm": "ssm",
    "pricing": "pricing",
    "servicequotas": "service-quotas",
}
#: What AWS asks for beside the calls themselves.
BESIDE = {"ec2:CreateTags", "iam:CreateServiceLinkedRole"}
#: Changes of things that are there: only of those with clusterkit's label.
CHANGES = ("Start", "Stop", "Terminate", "Modify", "Delete", "Deregister", "Cancel", "Release")


def statements() -> list[dict[str, Any]]:
    policy = json.loads((ROOT / "docs" / "aws-policy.json").read_text())
    return list(policy["Statement"])


def actions(statement: dict[str, Any]) -> list[str]:
    said = statement["Action"]
    return [said] if isinstance(said, str) else list(said)


@cache
def called() -> frozenset[str]:
    """Every name of an AWS operation that stands as a text in the provider's code."""
    session = Session()
    found: set[str] = set()
    operations = {
        iam: set(session.get_service_model(service).operation_names)
        for iam, service in SERVICES.items()
    }
    for file in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for iam, names in operations.items():
                    if node.value in names:
                        found.add(f"{iam}:{node.value}")
    return frozenset(found)


def test_every_call_is_in_the_policy() -> None:
    assert "ec2:RunInstances" in called()  # the search finds calls at all
    allowed = {action for one in statements() for action in actions(one)}
    assert called() - allowed == set()


def test_nothing_is_in_the_policy_that_is_not_called() -> None:
    allowed = {action for one in statements() for action in actions(one)}
    assert allowed - called() - BESIDE == set()
    assert not any("*" in action for action in allowed)


def test_what_is_there_is_changed_only_with_the_label() -> None:
    for statement in statements():
        for action in actions(statement):
            if action.partition(":")[2].startswith(CHANGES):
                condition = statement.get("Condition", {})
                assert condition == {"Null": {"ec2:ResourceTag/clusterkit-id": "false"}}, action


def test_labels_are_given_only_by_the_call_that_makes_a_thing() -> None:
    tagging = [one for one in statements() if "ec2:CreateTags" in actions(one)]
    assert len(tagging) == 1
    makers = tagging[0]["Condition"]["StringEquals"]["ec2:CreateAction"]
    assert makers
    assert all(f"ec2:{maker}" in called() for maker in makers)
