// Does what its event says; see ../README.md.

let count = 0;

class UnknownEvent extends Error {
  name = "UnknownEvent";
}

export async function handler(event, context) {
  count += 1;
  switch (event?.do) {
    case "echo":
      return event;
    case "raise":
      throw new Error(event.message);
    case "exit":
      process.exit(event.status);
    case "sleep":
      await new Promise((resolve) => setTimeout(resolve, event.seconds * 1000));
      return "slept";
    case "print":
      console.log(event.text);
      return null;
    case "count":
      return count;
    case "context":
      return { requestId: context.awsRequestId, custom: context.clientContext.custom };
    default:
      throw new UnknownEvent(`nothing is known of ${JSON.stringify(event)}`);
  }
}
