"""Prices a portfolio of European and American options with QuantLib."""

import QuantLib as ql  # noqa: N813 - as its own documentation has it

_DAYS = ql.Actual365Fixed()
_STEPS = 200


def lambda_handler(event, context):
    """`portfolio`: options, each with kind, style, spot, strike, rate and volatility (a year), days and quantity."""
    today = ql.DateParser.parseISO(event.get("date", "2025-01-02"))
    ql.Settings.instance().evaluationDate = today
    prices = [_price(option, today) for option in event["portfolio"]]
    value = sum(price * option.get("quantity", 1) for price, option in zip(prices, event["portfolio"], strict=True))
    return {"prices": [round(price, 8) for price in prices], "value": round(value, 8)}


def _price(terms, today):
    process = ql.BlackScholesProcess(
        ql.QuoteHandle(ql.SimpleQuote(terms["spot"])),
        ql.YieldTermStructureHandle(ql.FlatForward(today, terms["rate"], _DAYS)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), terms["volatility"], _DAYS)),
    )
    kind = {"call": ql.Option.Call, "put": ql.Option.Put}[terms["kind"]]
    expiry = today + int(terms["days"])
    is_european = terms["style"] == "european"
    exercise = ql.EuropeanExercise(expiry) if is_european else ql.AmericanExercise(today, expiry)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, terms["strike"]), exercise)
    option.setPricingEngine(
        ql.AnalyticEuropeanEngine(process) if is_european else ql.BinomialCRRVanillaEngine(process, _STEPS)
    )
    return option.NPV()
