"""SQS, DynamoDB and S3 for htcgrid, and the protocol of HTC-Grid."""
