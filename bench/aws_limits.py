"""What AWS publishes about SQS and DynamoDB, and the delays that are assumed of them. A figure has its page beside it."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
MOST_IN_FLIGHT = 120_000
"""Messages of a standard queue that are received and not deleted. At that, a long poll finds nothing, without an error."""
LONGEST_POLL = 20
"""Seconds."""

# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html
SQS_BATCH = 10
"""Messages of one receive, one delete and one change of visibility. Requests of a standard queue: "nearly unlimited"."""

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/on-demand-capacity-mode.html
NEW_TABLE = 4_000
"""Write units a second that a new on-demand table takes at once."""
PEAK_FACTOR = 2
PEAK_SECONDS = 1_800
"""A table takes up to twice its previous peak; more than that within 30 minutes may be throttled."""

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
TABLE_QUOTA = 40_000
"""Write units a second of one on-demand table, until AWS raises the quota of the account."""

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/bp-partition-key-design.html
PARTITION = 1_000
"""Write units a second of one partition: of all items with one key, in a table as in an index."""

# https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
WRITE_BATCH = 25

SQS_SECONDS = 0.010
"""Of one request within a region. Assumed."""
DYNAMODB_SECONDS = 0.006
"""Of one request within a region. Assumed."""
