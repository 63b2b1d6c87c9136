// The trace of a step: what viewers need of it is there, and slices that overlap do not share a lane.

#include "trainer/metrics/trace_file.hpp"

#include <gtest/gtest.h>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/error.hpp"

namespace muster {
namespace {

using nlohmann::json;

const std::vector<TraceRecord> step = {
    {Track::compute, "block.0.attention.qkv", 100.000010, 100.000030, "linear"},
    {Track::communication, "bucket 1", 100.000025, 100.000075, {}},
    {Track::compute, "block.0.attention", 100.000030, 100.000060, "attention"},
    {Track::communication, "bucket 0", 100.000040, 100.000080, {}},
    {Track::communication, "parameters", 100.000080, 100.000090, {}},
    {Track::compute, "embedding", 100.000000, 100.000010, {}},
};

// The slices of a trace by name, and the names of the lanes they lie on.
struct Read {
  explicit Read(const std::string& text) {
    const json trace = json::parse(text);
    for (const json& event : trace.at("traceEvents")) {
      if (event.at("ph") == "M" && event.at("name") == "thread_name")
        lanes[event.at("tid")] = event.at("args").at("name");
      if (event.at("ph") == "X") slices[event.at("name")] = event;
    }
  }
  std::string lane_of(const std::string& slice) const { return lanes.at(slices.at(slice).at("tid")); }

  std::map<int, std::string> lanes;
  std::map<std::string, json> slices;
};

TEST(TraceFile, tells_name_category_rank_and_microseconds_from_the_first_record) {
  const Read read(to_trace_json(step, 3));
  ASSERT_EQ(read.slices.size(), step.size());
  const json& qkv = read.slices.at("block.0.attention.qkv");
  EXPECT_EQ(qkv.at("cat"), "linear");
  EXPECT_EQ(qkv.at("pid"), 3);
  EXPECT_DOUBLE_EQ(qkv.at("ts"), 10);
  EXPECT_DOUBLE_EQ(qkv.at("dur"), 20);
  EXPECT_DOUBLE_EQ(read.slices.at("embedding").at("ts"), 0);
  EXPECT_EQ(read.slices.at("bucket 0").at("cat"), "communication");
}

TEST(TraceFile, gives_each_track_its_name_and_overlapping_slices_lanes_of_their_own) {
  const Read read(to_trace_json(step, 0));
  EXPECT_EQ(read.lane_of("block.0.attention.qkv"), "compute");
  EXPECT_EQ(read.lane_of("block.0.attention"), "compute");  // begins as the one before ends
  EXPECT_EQ(read.lane_of("bucket 1"), "communication");
  EXPECT_EQ(read.lane_of("bucket 0"), "communication 2");
  EXPECT_EQ(read.lane_of("parameters"), "communication");
}

TEST(TraceFile, is_a_trace_without_records_too) {
  const Read read(to_trace_json({}, 0));
  EXPECT_TRUE(read.slices.empty());
}

TEST(TraceFile, tells_where_it_cannot_be_written) {
  EXPECT_THROW(write_trace("/nonexistent/folder/trace.json", step, 0), UserError);
}

}  // namespace
}  // namespace muster
