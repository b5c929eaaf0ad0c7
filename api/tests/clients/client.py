"""Reads the punches and takes somebody on, by a client made from the description of the API.

Arguments: the server's address, an operator's key, a site, the one punch there is. Prints who was
taken on.
"""

import sys
from uuid import UUID

from punchtrail import AuthenticatedClient
from punchtrail.api.employees import hire_employee
from punchtrail.api.punches import list_punches
from punchtrail.models import EmployeeBody, Hired, PagePunchView

address, key, site, punch = sys.argv[1:]
with AuthenticatedClient(
    base_url=address, token=key, raise_on_unexpected_status=True
) as client:
    page = list_punches.sync(client=client)
    assert isinstance(page, PagePunchView), page
    assert [str(row.punch) for row in page.data] == [punch], page
    body = EmployeeBody(name="Grace", site=UUID(site))
    hired = hire_employee.sync(client=client, body=body)
    assert isinstance(hired, Hired), hired
    print(hired.employee)
