"""Price a 30-day at-the-money European option on the S&P 500, and check put-call parity."""

import QuantLib as ql  # noqa: N813 - as its own documentation has it


def handler(event, context):
    """`event`: date (ISO), spot, volatility and rate (a year, continuous), days to expiry."""
    today = ql.DateParser.parseISO(event["date"])
    ql.Settings.instance().evaluationDate = today
    expiry = today + int(event["days"])
    days = ql.Actual365Fixed()
    strike = event["spot"]
    process = ql.BlackScholesProcess(
        ql.QuoteHandle(ql.SimpleQuote(event["spot"])),
        ql.YieldTermStructureHandle(ql.FlatForward(today, event["rate"], days)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), event["volatility"], days)),
    )
    engine = ql.AnalyticEuropeanEngine(process)

    def price(kind):
        option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.EuropeanExercise(expiry))
        option.setPricingEngine(engine)
        return option

    call, put = price(ql.Option.Call), price(ql.Option.Put)
    discounted = strike * process.riskFreeRate().discount(expiry)
    gap = call.NPV() - put.NPV() - (event["spot"] - discounted)
    if abs(gap) > 1e-9 * event["spot"]:
        raise ArithmeticError(f"put-call parity is off by {gap} on {event['date']}")
    return {
        "date": event["date"],
        "call": round(call.NPV(), 10),
        "put": round(put.NPV(), 10),
        "delta": round(call.delta(), 10),
        "vega": round(call.vega(), 10),
    }
