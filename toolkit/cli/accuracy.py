"""`keydesk accuracy`: how well holds foretold charges."""

from datetime import datetime

import click

from toolkit.cli.app import App, Command, pass_app
from toolkit.cli.options import FROM, TO
from toolkit.cli.output import records
from toolkit.core.period import Period

_MONEY = ("cost", "held", "overrun")


@click.command(cls=Command)
@FROM
@TO
@click.option("--org", metavar="ORG", help="Only this organisation's.")
@click.option("--key", metavar="KEY", help="Only this API key's.")
@pass_app
def accuracy_command(app: App, start: datetime | None, end: datetime | None, org: str | None, key: str | None) -> None:
    """Show how well holds foretold charges, per key and model.

    The ratio is held ÷ charged; an overrun is a call that cost more than was held for it.
    """
    from toolkit.reports import hold_accuracy

    org_id, key_id = app.ids(org, key)
    frame = hold_accuracy.table(app.workspace.ledger, period=Period(start, end), org=org_id, key=key_id)
    columns = {
        "key_label": "key",
        "org": "organisation",
        "model": "model",
        "calls": "calls",
        "held_usd": "held",
        "cost_usd": "charged",
        "ratio": "ratio",
        "overruns": "overruns",
        "overrun_usd": "beyond holds",
    }
    app.rows(records(frame, _MONEY), columns, empty="No call was charged in this period.")
