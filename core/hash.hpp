// Hashes: xxHash (XXH3, 64 bit) for files and memory, FNV-1a (32 bit) for the names of random streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace muster {

std::uint64_t hash_bytes(std::span<const std::byte> bytes);

// The same hash over bytes that arrive in pieces.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void add(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Hash of a whole file; throws UserError when it cannot be read.
std::uint64_t hash_file(const std::string& path);

// 16 lower-case hexadecimal digits, as written into manifests; and back, nothing if they are anything else.
std::string hex(std::uint64_t hash);
std::optional<std::uint64_t> from_hex(std::string_view digits);

constexpr std::uint32_t fnv1a(std::string_view text) {
  std::uint32_t h = 2166136261u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 16777619u;
  return h;
}

}  // namespace muster
