#include "core/json_text.hpp"

#include <fmt/format.h>
#include <span>

#include "core/hash.hpp"

namespace muster {
namespace {

constexpr std::string_view seal_key = ",\n\"xxh3\": \"";
constexpr std::string_view seal_end = "\"\n}\n";
constexpr std::size_t seal_bytes = seal_key.size() + 16 + seal_end.size();

}  // namespace

bool nests_deeper_than(std::string_view json, int most) {
  int depth = 0;
  for (std::size_t at = 0; at < json.size(); ++at) {
    const char c = json[at];
    if (c == '"') {
      for (++at; at < json.size() && json[at] != '"'; ++at)
        if (json[at] == '\\') ++at;
    } else if (c == '[' || c == '{') {
      if (++depth > most) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

std::string sealed(std::string_view body) {
  return fmt::format("{}{}{}{}", body, seal_key, hex(hash_bytes(std::as_bytes(std::span(body)))), seal_end);
}

Seal seal_of(std::string_view whole) {
  if (whole.size() < seal_bytes || !whole.ends_with(seal_end)) return Seal::missing;
  const std::string_view body = whole.substr(0, whole.size() - seal_bytes), seal = whole.substr(body.size());
  if (!seal.starts_with(seal_key)) return Seal::missing;
  return sealed(body) == whole ? Seal::holds : Seal::broken;
}

}  // namespace muster
