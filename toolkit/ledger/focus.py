"""FOCUS: the ledger in the columns of the FinOps Open Cost and Usage Specification, version 1.2. Pure: text only.

One row for each key, model, UTC day, kind of token, price applied and set of tags. Quantity times unit price is
exact there, while a charge is rounded once a call: what that rounding adds up to is a row of its own, so that the
billed costs sum to the ledger's charges. `docs/exports.md` says what stands in each column and why.
"""

from toolkit.ledger import pricing_sql

_METERS = {
    "input": "Input tokens",
    "cached_input": "Cached input tokens",
    "cache_write_5m": "Cache write tokens, 5 minutes",
    "cache_write_1h": "Cache write tokens, 1 hour",
    "output": "Output tokens",
}

_SAME = "day, org_id, org, key_id, key, model, upstream, tags"
"""What a row of rounding shares with the rows that it belongs to."""

_COLUMNS = {
    "BilledCost": "billed",
    "BillingAccountId": "org_id",
    "BillingAccountName": "org",
    "BillingCurrency": "'USD'",
    "BillingPeriodEnd": "(date_trunc('month', day) + INTERVAL 1 MONTH)::TIMESTAMP::TIMESTAMPTZ",
    "BillingPeriodStart": "date_trunc('month', day)::TIMESTAMP::TIMESTAMPTZ",
    "ChargeCategory": "if(kind IS NULL, 'Adjustment', 'Usage')",
    "ChargeClass": "NULL::VARCHAR",
    "ChargeDescription": "concat_ws(': ', model, meter)",
    "ChargeFrequency": "'Usage-Based'",
    "ChargePeriodEnd": "(day + INTERVAL 1 DAY)::TIMESTAMP::TIMESTAMPTZ",
    "ChargePeriodStart": "day::TIMESTAMP::TIMESTAMPTZ",
    "ConsumedQuantity": "quantity",
    "ConsumedUnit": "if(kind = 'request', 'Requests', if(kind IS NULL, NULL, 'Tokens'))",
    "ContractedCost": "coalesce(priced * price * multiplier, 0::HUGEINT)",
    "ContractedUnitPrice": "price * multiplier",
    "EffectiveCost": "billed",
    "InvoiceIssuerName": "$issuer",
    "ListCost": "coalesce(priced * price, 0::HUGEINT)",
    "ListUnitPrice": "price",
    "PricingCategory": "if(kind IS NULL, NULL, 'Standard')",
    "PricingQuantity": "priced",
    "PricingUnit": "if(kind = 'request', 'Requests', if(kind IS NULL, NULL, '1000000 Tokens'))",
    "ProviderName": "$issuer",
    "PublisherName": "coalesce(upstream, $issuer)",
    "ResourceId": "model",
    "ResourceName": "NULL::VARCHAR",  # models have an id and no display name, and the one must not stand for the other
    "ResourceType": "if(model IS NULL, NULL, 'Model')",
    "ServiceCategory": "'AI and Machine Learning'",
    "ServiceName": "'LLM API'",
    "ServiceSubcategory": "'Generative AI'",
    "SkuId": "if(kind IS NULL, NULL, concat_ws('/', model, kind))",
    "SkuMeter": "if(kind IS NULL, NULL, meter)",
    "SkuPriceDetails": "if(kind IS NULL, NULL, json_object('x_PriceEntry', price_id)::VARCHAR)",
    "SkuPriceId": "if(kind IS NULL, NULL, concat_ws('/', price_id, model, kind, price::VARCHAR))",
    "SubAccountId": "key_id",
    "SubAccountName": "key",
    "Tags": "tags",
}
"""The columns, and what they are: of a row of rounding `kind`, `quantity`, `priced` and `price` are NULL."""

SCALES = {
    "BilledCost": 9,
    "ConsumedQuantity": 0,
    "ContractedCost": 21,
    "ContractedUnitPrice": 15,
    "EffectiveCost": 9,
    "ListCost": 15,
    "ListUnitPrice": 9,
    "PricingQuantity": 6,
}
"""Columns that are decimals: the query gives them as whole numbers, of which these are the last so many decimals."""


def query(condition: str) -> str:
    """Return SQL for the rows of FOCUS, in order of time; its parameter `$issuer` is who bills.

    Args:
        condition: on the view `usage`; it must leave whole days, or none of a day.
    """
    tokens = {kind: f"sum({sql})::HUGEINT AS {kind}_sum" for kind, sql in pricing_sql.TOKENS.items()}
    prices = [f"{kind}_price" for kind in [*tokens, "request"]]
    kinds = [
        *((kind, _METERS[kind], f"{kind}_sum", f"{kind}_sum") for kind in tokens),
        # A price per request is one of 1, not of a million: scaled up, all kinds are computed alike.
        ("request", "Requests", "if(request_price = 0, 0, requests)", "requests * 1000000"),
    ]
    lines = " UNION ALL ".join(
        f"SELECT *, {rank} AS rank, '{kind}' AS kind, '{meter}' AS meter, {quantity}::HUGEINT AS quantity,"
        f" ({priced})::HUGEINT AS priced, {kind}_price::HUGEINT AS price FROM sold"
        for rank, (kind, meter, quantity, priced) in enumerate(kinds)
    )
    return f"""
    WITH sold AS MATERIALIZED (
        SELECT day, org_id, any_value(org) AS org, key_id, any_value(key) AS key, model, upstream, tags,
               price_id, multiplier, {", ".join(prices)},
               count(*) AS requests, sum(cost)::HUGEINT AS charged, {", ".join(tokens.values())}
        FROM usage WHERE {pricing_sql.CHARGED} AND {condition} GROUP BY ALL
    ),
    used AS MATERIALIZED (
        SELECT *, {pricing_sql.half_even("priced * price * multiplier", "1000000000000")} AS billed
        FROM ({lines}) WHERE quantity > 0
    ),
    rounded AS (
        SELECT {_SAME}, sum(charged)::HUGEINT AS billed
        FROM (SELECT {_SAME}, charged FROM sold UNION ALL SELECT {_SAME}, -billed FROM used)
        GROUP BY ALL HAVING sum(charged) <> 0
    ),
    lines AS (
        FROM used UNION ALL BY NAME SELECT *, 9 AS rank, 'Rounding of each charge to a nano-USD' AS meter FROM rounded
    )
    SELECT {", ".join(f'{sql} AS "{name}"' for name, sql in _COLUMNS.items())}
    FROM lines ORDER BY day, org_id, key_id, model, upstream, tags, price_id, multiplier, rank, price
    """
