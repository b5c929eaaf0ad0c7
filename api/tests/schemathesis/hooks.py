"""What Schemathesis is told of the server under test: as whom to ask, the ids of what is there, and
requests that the description alone can't know, as signatures and codes.

A request that the description allows is, until the operation is done and every other time after
that, one of those that the server takes; of the rest each gets ids of what is there in turn until
then, and every other one after. What is made up to be refused stays as it is. Which of them is
settled by the requests themselves, so that it is the same in each run of one seed.
"""

import json
import zlib
from collections import Counter

import schemathesis
from schemathesis.core.parameters import ParameterLocation

# In the folder that it runs in: what it is told, and every answer's operation and status.
with open("told.json", encoding="utf-8") as file:
    TOLD = json.load(file)
CALLER, GIVEN = TOLD["caller"], TOLD["given"]
ANSWERS = open("answers", "a", encoding="utf-8", buffering=1)
# What a request has parts in.
PARTS = (
    ParameterLocation.PATH,
    ParameterLocation.QUERY,
    ParameterLocation.HEADER,
    ParameterLocation.BODY,
)
# Asked about what is given only: of any other role, user, session, key or device, which Schemathesis
# finds in answers, it might be the callers themselves who are kept out.
BOUND = {
    "DELETE /v1/keys/{key}",
    "DELETE /v1/sessions/{session}",
    "DELETE /v1/users/{user}",
    "DELETE /v1/users/{user}/sessions",
    "POST /v1/devices/{device}/revoke",
    "POST /v1/devices/{device}/site",
    "PUT /v1/roles/{role}",
    "PUT /v1/users/{user}/disabled",
    "PUT /v1/users/{user}/role",
}
# Nobody waits for a verdict here, however long they may.
WAIT_S_MAX = 1

taken = Counter()
placed = Counter()
done = set()
asked = 0


def next_given(label):
    """The next request that an operation takes; nothing where none is given."""
    given = GIVEN["requests"].get(label)
    return given[taken[label] % len(given)] if given else {}


def headers_of(operation):
    """What the caller is known by on an operation: an owner by what the operation asks for."""
    callers = GIVEN["callers"]
    if CALLER != "owner":
        return callers[CALLER]
    # What ends a session is asked for in sessions of its own.
    if "headers" in next_given(operation.label):
        return next_given(operation.label)["headers"]
    ways = {name for way in operation.definition.raw.get("security", []) for name in way}
    for way in ("device_token", "operator_key", "session"):
        if way in ways:
            return callers[way]
    return {}


if CALLER != "nobody":

    @schemathesis.auth(refresh_interval=None)
    class Caller:
        """Puts on each request what its caller is known by."""

        def get(self, case, context):
            return headers_of(case.operation)

        def set(self, case, data, context):
            case.headers.update(data)


def is_allowed(case, *locations):
    """Whether the description allows what a request has there."""
    return not any(case.meta.is_negative_at(location) for location in locations)


def number_of(case):
    """A number that is the request's own."""
    text = repr((case.path_parameters, case.query, case.body))
    return zlib.crc32(text.encode("utf-8", "replace"))


def put_given(case, given):
    """Makes a request one that the server takes."""
    case.path_parameters = dict(given.get("path", {}))
    case.query = dict(given.get("query", {}))
    if given.get("body") is not None:
        case.body = given["body"]


def put_ids(case, number):
    """Puts ids of what is there into the path."""
    label = case.operation.label
    for name in list(case.path_parameters):
        ids = GIVEN["ids"].get(f"{label} {name}") or GIVEN["ids"].get(name)
        if ids:
            case.path_parameters[name] = ids[number % len(ids)]


@schemathesis.hook
def before_call(context, case, kwargs):
    global asked
    asked += 1
    kwargs["allow_redirects"] = False
    case.headers["X-Forwarded-For"] = f"10.{asked >> 16 & 255}.{asked >> 8 & 255}.{asked & 255}"
    label = case.operation.label
    if case.meta is None or case.method.upper() != case.operation.method.upper():
        return
    number = number_of(case)
    given = next_given(label)
    undone = label not in done
    if given and is_allowed(case, *PARTS) and (undone or number % 2 == 0):
        put_given(case, given)
        taken[label] += 1
        return
    if is_allowed(case, ParameterLocation.PATH) and (undone or number % 4 > 1 or label in BOUND):
        put_ids(case, placed[label] if undone else number)
        placed[label] += undone
    wait_s = str((case.query or {}).get("wait_s", ""))
    if wait_s.isdigit() and is_allowed(case, ParameterLocation.QUERY):
        case.query["wait_s"] = min(int(wait_s), WAIT_S_MAX)


@schemathesis.hook
def after_call(context, case, response):
    ANSWERS.write(f"{case.operation.label} {response.status_code}\n")
    if response.status_code < 400:
        done.add(case.operation.label)
