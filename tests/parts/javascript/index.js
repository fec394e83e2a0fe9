const { S3Client, GetObjectCommand } = require("@aws-sdk/client-s3");
const { DynamoDBClient, PutItemCommand } = require("@aws-sdk/client-dynamodb");
const { STSClient, GetCallerIdentityCommand } = require("@aws-sdk/client-sts");
const s3 = new S3Client({ forcePathStyle: true }), dynamodb = new DynamoDBClient({}), sts = new STSClient({});

exports.handler = async (event) => {
  const found = await s3.send(new GetObjectCommand({ Bucket: event.bucket, Key: "in" }));
  const item = { id: { S: event.id }, body: { S: await found.Body.transformToString() } };
  await dynamodb.send(new PutItemCommand({ TableName: event.table, Item: item }));
  const who = await sts.send(new GetCallerIdentityCommand({}));
  return { who: who.Arn, region: await s3.config.region() };
};
