"""Every example of the description is as its schema says; fails with each that isn't."""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    DESCRIPTION = json.load(file)


def contents(operation):
    """The bodies that an operation takes and gives, with where they stand."""
    yield from operation.get("requestBody", {}).get("content", {}).items()
    for answer in operation["responses"].values():
        yield from answer.get("content", {}).items()


faults = []
for methods in DESCRIPTION["paths"].values():
    for operation in methods.values():
        shown = [(kind, of) for kind, of in contents(operation) if "example" in of]
        shown += [(of["name"], of) for of in operation.get("parameters", []) if "example" in of]
        for what, of in shown:
            schema = {**of["schema"], "components": DESCRIPTION["components"]}
            for error in Draft202012Validator(schema).iter_errors(of["example"]):
                where = "/".join(map(str, error.absolute_path))
                faults.append(f"{operation['operationId']}, {what}, /{where}: {error.message[:200]}")
sys.exit("\n".join(faults) or None)
