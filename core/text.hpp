// Small helpers for text that people read: sizes, durations, and the nearest known name to a misspelt one.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace muster {

std::string human_bytes(std::uint64_t bytes);  // "1.50 GiB"
std::string human_count(double count);         // "124.4 M"
std::string human_seconds(double seconds);     // "2 h 05 min", "3 min 20 s", "12 s"
// The candidate with the least edit distance to `name` (Levenshtein); empty if there are no candidates.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);
// Whether all of it is well-formed (Unicode 15, table 3-7).
bool is_utf8(std::string_view text);

}  // namespace muster
