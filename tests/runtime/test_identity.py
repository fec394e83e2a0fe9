"""The names that an invocation goes by."""

import pytest

from htcgrid.runtime.identity import function_arn
from htcgrid.spi import Function


@pytest.mark.parametrize(
    ("credentials", "arn"),
    [
        ("none", "arn:aws:lambda:eu-west-1:012345678912:function:pricing"),
        ("agent", "arn:aws:lambda:eu-west-1:012345678912:function:pricing"),
        ("role:arn:aws:iam::210987654321:role/r", "arn:aws:lambda:eu-west-1:210987654321:function:pricing"),
        ("role:arn:aws-cn:iam::210987654321:role/r", "arn:aws-cn:lambda:eu-west-1:210987654321:function:pricing"),
        ("role:arn:short", "arn:short:lambda:eu-west-1:012345678912:function:pricing"),
    ],
)
def test_the_functions_arn_has_the_account_of_the_role_that_the_handler_acts_as(credentials: str, arn: str) -> None:
    function = Function(name="pricing", region="eu-west-1", credentials=credentials)
    assert function_arn(function.function_name, function.aws_region, function.role_arn) == arn
