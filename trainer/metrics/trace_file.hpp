// What ran when in a step, as a file that Perfetto (ui.perfetto.dev) and chrome://tracing open: Chrome's trace
// format, a process for the rank and under it the tracks compute and communication.
//
// Records of a track that overlap, as collectives do, go to further lanes of it, because viewers draw only nested
// slices on one.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace muster {

enum class Track : std::uint8_t { compute, communication };

struct TraceRecord {
  Track track = Track::compute;
  std::string name;           // what the slice is called: "block.3.attention.qkv"
  double begin = 0, end = 0;  // steady seconds (core/stream.hpp)
  std::string category = {};  // what slices are coloured and searched by: "linear"
};

// Times count from the earliest record.
std::string to_trace_json(std::span<const TraceRecord> records, int rank);

// Throws UserError when the file cannot be written.
void write_trace(const std::string& path, std::span<const TraceRecord> records, int rank);

}  // namespace muster
