"""The `aws_lambda` compute plane: handlers on the AWS Lambda service, through boto3.

`invoker` is the plugin. `service` makes one Invoke, `answers` and `reports` read what comes back,
`faults` says what went wrong and what to do. `pace` and `gate` keep the concurrency to what the account
gives. `deployment` and the modules it imports set a function up; `prices` and `ledger` say what it cost.
"""
