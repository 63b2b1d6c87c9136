#include "trainer/metrics/trace_file.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "core/file.hpp"

namespace muster {
namespace {

using nlohmann::ordered_json;

constexpr std::array<std::string_view, 2> track_names = {"compute", "communication"};

// Whole nanoseconds, so that slices which touch do not overlap after rounding.
double nanoseconds(double seconds) { return std::round(1e9 * seconds); }

// The first lane that is free at `begin`; `ends` holds when each becomes free.
std::size_t take_lane(std::vector<double>& ends, double begin, double end) {
  const auto free = std::ranges::find_if(ends, [&](double busy_until) { return busy_until <= begin; });
  const auto lane = static_cast<std::size_t>(free - ends.begin());
  if (free == ends.end()) ends.push_back(end);
  ends[lane] = end;
  return lane;
}

ordered_json label(const char* what, int rank, std::int64_t thread, const std::string& name) {
  return {{"name", what}, {"ph", "M"}, {"pid", rank}, {"tid", thread}, {"args", {{"name", name}}}};
}

}  // namespace

std::string to_trace_json(std::span<const TraceRecord> records, int rank) {
  std::vector<const TraceRecord*> ordered;
  for (const TraceRecord& record : records) ordered.push_back(&record);
  std::ranges::stable_sort(ordered, {}, [](const TraceRecord* record) { return record->begin; });
  const double start = ordered.empty() ? 0 : ordered.front()->begin;

  // Lanes of a track are numbered together, so that viewers show them together.
  constexpr std::int64_t most_lanes = 1000;
  std::array<std::vector<double>, track_names.size()> lanes;
  ordered_json events = ordered_json::array();
  events.push_back(label("process_name", rank, 0, fmt::format("rank {}", rank)));
  for (const TraceRecord* record : ordered) {
    const auto track = static_cast<std::size_t>(record->track);
    const std::size_t known = lanes[track].size();
    const std::size_t lane = take_lane(lanes[track], record->begin, record->end);
    const std::int64_t thread =
        static_cast<std::int64_t>(track) * most_lanes + static_cast<std::int64_t>(lane);
    if (lane == known)
      events.push_back(label(
          "thread_name", rank, thread,
          lane == 0 ? std::string(track_names[track]) : fmt::format("{} {}", track_names[track], lane + 1)));
    const double begin = nanoseconds(record->begin - start), end = nanoseconds(record->end - start);
    events.push_back({{"name", record->name},
                      {"cat", record->category.empty() ? track_names[track] : record->category},
                      {"ph", "X"},
                      {"pid", rank},
                      {"tid", thread},
                      {"ts", begin / 1e3},
                      {"dur", (end - begin) / 1e3}});
  }
  return ordered_json{{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}}.dump();
}

void write_trace(const std::string& path, std::span<const TraceRecord> records, int rank) {
  write_text_atomically(path, to_trace_json(records, rank));
}

}  // namespace muster
