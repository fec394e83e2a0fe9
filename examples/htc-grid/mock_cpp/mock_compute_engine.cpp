// A computation of a given length: mock_compute_engine MILLISECONDS REPETITIONS KILOBYTES. The answer goes to standard output.

#include <chrono>
#include <iostream>
#include <string>

int main(int count, char **arguments) {
  if (count != 4) {
    std::cerr << "expected: milliseconds, repetitions, kilobytes\n";
    return 2;
  }
  const int milliseconds = std::stoi(arguments[1]), repetitions = std::stoi(arguments[2]);
  const std::size_t bytes = std::stoul(arguments[3]) * 1024;
  unsigned long turns = 0;
  for (int n = 0; n < repetitions; ++n) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(milliseconds);
    while (std::chrono::steady_clock::now() < end) ++turns;
  }
  std::cout << R"({"computed_ms": )" << milliseconds * repetitions << R"(, "turned": )" << (turns > 0 ? "true" : "false")
            << R"(, "data": ")" << std::string(bytes, 'x') << "\"}\n";
}
