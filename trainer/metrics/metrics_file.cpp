#include "trainer/metrics/metrics_file.hpp"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/error.hpp"

namespace muster {
namespace {

// Whether a whole line is a record of a step up to `last_step`.
bool belongs(std::string_view line, std::int64_t last_step) {
  const auto record = nlohmann::json::parse(line, nullptr, false);
  if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer()) return false;
  return record["step"].get<std::int64_t>() <= last_step;
}

std::string kept_lines(std::string_view text, std::int64_t last_step) {
  std::string kept;
  while (true) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return kept;
    if (belongs(text.substr(0, end), last_step)) kept += text.substr(0, end + 1);
    text.remove_prefix(end + 1);
  }
}

File open_after_cut(const std::string& path, std::int64_t last_step) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  if (error)
    throw UserError("cannot look at {}: {}: check its permissions, and the disk", path, error.message());
  const std::string kept = exists ? kept_lines(read_text(path), last_step) : "";
  write_text_atomically(path, kept);
  return File::open_to_append(path);
}

}  // namespace

std::string to_json_line(const StepRecord& record) {
  nlohmann::ordered_json json;
  json["step"] = record.step;
  json["loss"] = record.loss;
  json["grad_norm"] = record.grad_norm;
  json["lr"] = record.lr;
  json["tokens_per_s"] = record.tokens_per_s;
  json["sol"] = record.sol;
  json["seconds"] = record.seconds;
  json["wait_data_ms"] = record.wait_data_ms;
  json["wait_comm_ms"] = record.wait_comm_ms;
  json["samples"] = record.samples;
  json["targets"] = record.targets;
  json["skipped"] = record.skipped;
  if (record.eval_loss) json["eval_loss"] = *record.eval_loss;
  json["attempt"] = record.attempt;
  return json.dump();
}

MetricsFile::MetricsFile(const std::string& path, std::int64_t last_step)
    : file_(open_after_cut(path, last_step)) {}

void MetricsFile::append(const StepRecord& record) { file_.write(to_json_line(record) + "\n"); }

}  // namespace muster
