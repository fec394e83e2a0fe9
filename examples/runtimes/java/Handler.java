// Does what its event says; see ../README.md. A Runtime API client and a handler in one file of plain Java.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.regex.Pattern;

public class Handler {
  static final HttpClient CLIENT = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  static final String API = "http://" + System.getenv("AWS_LAMBDA_RUNTIME_API") + "/2018-06-01/runtime/";

  static class UnknownEvent extends Exception {
    UnknownEvent(String message) { super(message); }
  }

  static int count = 0;

  static String handle(String event, HttpResponse<String> invocation) throws Exception {
    count++;
    switch (field(event, "do")) {
      case "echo": return event;
      case "raise": throw new Exception(field(event, "message"));
      case "exit": Runtime.getRuntime().halt(Integer.parseInt(field(event, "status")));
      case "sleep":
        Thread.sleep((long) (Double.parseDouble(field(event, "seconds")) * 1000));
        return "\"slept\"";
      case "print":
        System.out.println(field(event, "text"));
        return "null";
      case "count": return Integer.toString(count);
      case "context":
        String context = header(invocation, "Lambda-Runtime-Client-Context"); // {"custom":{...}}
        String custom = context.substring(context.indexOf(':') + 1, context.length() - 1);
        return "{\"requestId\": \"" + header(invocation, "Lambda-Runtime-Aws-Request-Id") + "\", \"custom\": " + custom + "}";
      default: throw new UnknownEvent("nothing is known of this event");
    }
  }

  public static void main(String[] arguments) throws Exception {
    while (true) {
      var next = HttpRequest.newBuilder(URI.create(API + "invocation/next")).build();
      var invocation = CLIENT.send(next, BodyHandlers.ofString());
      String path = "invocation/" + header(invocation, "Lambda-Runtime-Aws-Request-Id");
      try {
        post(path + "/response", handle(invocation.body(), invocation));
      } catch (Exception error) {
        String type = error.getClass().getSimpleName();
        post(path + "/error", "{\"errorType\": \"" + type + "\", \"errorMessage\": \"" + error.getMessage() + "\"}");
      }
    }
  }

  static void post(String path, String body) throws Exception {
    var request = HttpRequest.newBuilder(URI.create(API + path)).POST(BodyPublishers.ofString(body)).build();
    CLIENT.send(request, BodyHandlers.discarding());
  }

  static String header(HttpResponse<String> response, String name) {
    return response.headers().firstValue(name).orElse("");
  }

  /** The value of a key as it stands in the event, or nothing. Enough for these events. */
  static String field(String event, String key) {
    var found = Pattern.compile('"' + key + "\"\\s*:\\s*(\"((?:[^\"\\\\]|\\\\.)*)\"|[-0-9.]+)").matcher(event);
    if (!found.find()) return "";
    return found.group(2) != null ? found.group(2) : found.group(1);
  }
}
