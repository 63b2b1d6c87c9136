// Small helpers for text that people read and write: sizes, durations, numbers, names, and what a terminal bears.
#pragma once

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>

namespace muster {

std::string human_bytes(std::uint64_t bytes);  // "1.50 GiB"
std::string human_count(double count);         // "124.4 M"
std::string human_seconds(double seconds);     // "2 h 05 min", "3 min 20 s", "12 s"
double plain_nan(double value);  // the same; a NaN without the sign with which it would be printed

// The number that all of `text` spells, in decimal; nothing if it is none, or one that its type cannot hold.
template <class Number>
std::optional<Number> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// Levenshtein's.
std::size_t edit_distance(std::string_view a, std::string_view b);
// The candidate with the least edit distance to `name`; empty if there are no candidates.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

// Bytes of the character that `text` begins with; 0 if it is not well-formed (Unicode 15, table 3-7).
std::size_t character_bytes(std::string_view text);
bool is_utf8(std::string_view text);
// Control characters but `kept`, and bytes that are no UTF-8, as \xNN, so that nothing moves a terminal's cursor.
std::string without_controls(std::string_view text, std::string_view kept = "");
// The same, and of a text longer than `most` bytes its ends, with "..." between them.
std::string quotable(std::string_view text, std::size_t most = 400);

}  // namespace muster
