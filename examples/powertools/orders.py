"""A handler of the kind that people write for AWS Lambda, with Powertools for AWS Lambda (Python)."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function
from aws_lambda_powertools.utilities.parser import BaseModel, parse
from aws_lambda_powertools.utilities.typing import LambdaContext

logger = Logger(service="orders")
metrics = Metrics(namespace="orders", service="orders")
tracer = Tracer(service="orders")
processor = BatchProcessor(event_type=EventType.SQS)
once = DynamoDBPersistenceLayer(table_name="orders")
by_id = IdempotencyConfig(event_key_jmespath="id")


class Order(BaseModel):
    """What a record's body holds."""

    id: str
    amount: int


@idempotent_function(data_keyword_argument="order", persistence_store=once, config=by_id)
def charge(*, order: dict[str, Any]) -> dict[str, Any]:
    """Charged once for each id, however often it comes."""
    metrics.add_metric("Charged", MetricUnit.Count, 1)
    logger.info("charged", extra={"order": order["id"]})
    return {"id": order["id"], "charged": order["amount"]}


@tracer.capture_method
def take(record: SQSRecord) -> dict[str, Any]:
    """One record of the batch; what it raises fails that record alone."""
    return dict(charge(order=parse(record.json_body, Order).model_dump()))


@logger.inject_lambda_context
@metrics.log_metrics
@tracer.capture_lambda_handler
def handler(event: dict[str, Any], context: LambdaContext) -> PartialItemFailureResponse:
    """An SQS event, as AWS's event source mapping sends it."""
    by_id.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=take, processor=processor, context=context)
