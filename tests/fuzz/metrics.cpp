// metrics.jsonl of a run that goes on. What is kept must be kept again, and the next step behind it.
#include "tests/fuzz/target.hpp"
#include "trainer/metrics/metrics_file.hpp"

void muster::fuzz::read(std::string_view bytes) {
  constexpr std::int64_t last_step = 5;
  const std::string path = write("metrics.jsonl", bytes);
  { MetricsFile(path, last_step).append({.step = last_step + 1}); }
  const std::string kept = read_text(path);
  { const MetricsFile again(path, last_step + 1); }
  check(read_text(path) == kept, "lines that were kept are not kept again");
}
