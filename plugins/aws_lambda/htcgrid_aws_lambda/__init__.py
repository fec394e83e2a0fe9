"""The `aws_lambda` compute plane: handlers on the AWS Lambda service, through boto3.

`invoker` is the plugin. `lambda_service` makes one Invoke, `answers` and `report_lines` read its answer. `ramp` keeps
the calls in flight within the account's limit. `function_deployment` and the modules it imports
set a function up. Session, errors, prices and usage are those of `htcgrid_aws`; `billing` adds the invocations to them.
"""
