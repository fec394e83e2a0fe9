// Does what its event says; see ../README.md. One process an event: the bootstrap says the rest.

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <iterator>
#include <regex>
#include <string>
#include <thread>

// The value of a key as it stands in the event, or nothing. Enough for these events; a real computation
// would bring a JSON library.
static std::string field(const std::string &event, const std::string &key) {
  std::smatch found;
  const std::regex text("\"" + key + R"("\s*:\s*("((?:[^"\\]|\\.)*)\"|[-0-9.]+))");
  if (!std::regex_search(event, found, text)) return "";
  return found[2].matched ? found[2].str() : found[1].str();
}

static std::string variable(const char *name) {
  const char *value = std::getenv(name);
  return value ? value : "";
}

static int error(const std::string &type, const std::string &message) {
  std::cout << R"({"errorType": ")" << type << R"(", "errorMessage": ")" << message << "\"}";
  return 1;
}

int main() {
  const std::string event{std::istreambuf_iterator<char>(std::cin), {}};
  const std::string what = field(event, "do");
  if (what == "echo") {
    std::cout << event;
  } else if (what == "raise") {
    return error("Error", field(event, "message"));
  } else if (what == "exit") {
    return std::stoi(field(event, "status"));
  } else if (what == "sleep") {
    std::this_thread::sleep_for(std::chrono::duration<double>(std::stod(field(event, "seconds"))));
    std::cout << "\"slept\"";
  } else if (what == "print") {
    std::cerr << field(event, "text") << std::endl;
    std::cout << "null";
  } else if (what == "count") {
    std::cout << variable("COUNT");
  } else if (what == "context") {
    std::string custom = variable("CLIENT_CONTEXT");  // {"custom":{...}}
    custom = custom.substr(custom.find(':') + 1);
    custom.pop_back();
    std::cout << R"({"requestId": ")" << variable("REQUEST_ID") << R"(", "custom": )" << custom << "}";
  } else {
    return error("UnknownEvent", "nothing is known of this event");
  }
  return 0;
}
