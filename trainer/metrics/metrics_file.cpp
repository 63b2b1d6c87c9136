#include "trainer/metrics/metrics_file.hpp"

#include <filesystem>
#include <fmt/ranges.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "core/json_text.hpp"

namespace muster {
namespace {

struct Line {
  std::int64_t step = 0, attempt = 0;
};

// Nothing if a line is no record of a step.
std::optional<Line> parse_line(std::string_view line) {
  if (nests_deeper_than(line, most_json_depth)) return std::nullopt;
  const auto record = nlohmann::json::parse(line, nullptr, false);
  const auto number = [&](const char* name) {
    const auto found = record.find(name);
    return found != record.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
  };
  if (!record.is_object() || number("step") < 1 || !record.contains("loss")) return std::nullopt;
  return Line{number("step"), number("attempt")};
}

struct Kept {
  std::map<std::int64_t, std::pair<std::int64_t, std::string_view>> lines;  // by step: attempt, and the line
  std::string damaged;
  std::int64_t damaged_lines = 0, twice = 0;
};

Kept kept_lines(std::string_view text, std::int64_t last_step) {
  Kept kept;
  while (true) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return kept;
    const std::string_view whole = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    const auto line = parse_line(whole);
    if (!line) {
      kept.damaged += whole;
      ++kept.damaged_lines;
    } else if (line->step <= last_step) {
      auto& place = kept.lines[line->step];
      if (!place.second.empty()) ++kept.twice;
      if (place.second.empty() || line->attempt >= place.first) place = {line->attempt, whole};
    }
  }
}

std::string remark_on(const std::string& path, const Kept& kept, std::int64_t last_step) {
  std::vector<std::string> found;
  if (kept.damaged_lines > 0)
    found.push_back(
        fmt::format("{} of its lines were no records and are now in {}.damaged", kept.damaged_lines, path));
  if (kept.twice > 0) found.push_back(fmt::format("{} stood twice and were removed", kept.twice));
  if (const std::int64_t missing = last_step - std::ssize(kept.lines); missing > 0) {
    std::int64_t first = 1;
    while (kept.lines.contains(first)) ++first;
    found.push_back(fmt::format("{} of {} steps are missing, the first is {}", missing, last_step, first));
  }
  return found.empty() ? "" : fmt::format("{}: {}", path, fmt::join(found, "; "));
}

File open_after_cut(const std::string& path, std::int64_t last_step, std::string& remark) {
  std::error_code error;
  const bool exists = std::filesystem::exists(path, error);
  if (error)
    throw UserError("cannot look at {}: {}: check its permissions, and the disk", path, error.message());
  const std::string before = exists ? read_text(path) : "";
  const Kept kept = kept_lines(before, last_step);
  remark = remark_on(path, kept, last_step);
  if (!kept.damaged.empty()) write_text_atomically(path + ".damaged", kept.damaged);
  std::string text;
  for (const auto& [step, line] : kept.lines) text += line.second;
  write_text_atomically(path, text);
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
    : path_(path), file_(open_after_cut(path, last_step, remark_)) {}

void MetricsFile::append(const StepRecord& record) { file_.write(to_json_line(record) + "\n"); }

void MetricsFile::amend(const StepRecord& record) {
  std::string text = read_text(path_);
  if (text.ends_with('\n')) text.pop_back();
  text.erase(text.rfind('\n') + 1);  // of npos, too: there is one line
  write_text_atomically(path_, text + to_json_line(record) + "\n");
  file_ = File::open_to_append(path_);
}

}  // namespace muster
