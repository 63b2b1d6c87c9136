#include "core/hash.hpp"

#include <charconv>
#include <fmt/format.h>
#include <vector>
#include <xxhash.h>

#include "core/file.hpp"

#if MUSTER_XXHASH_DISPATCHES
#include <xxh_x86dispatch.h>  // defines the same names anew
#endif

namespace muster {

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) { XXH3_64bits_reset(state_->xxh); }
Hasher::~Hasher() = default;
Hasher::Hasher(Hasher&&) noexcept = default;
Hasher& Hasher::operator=(Hasher&&) noexcept = default;

void Hasher::add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
}

std::uint64_t Hasher::value() const { return XXH3_64bits_digest(state_->xxh); }

std::uint64_t hash_bytes(std::span<const std::byte> bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::uint64_t hash_file(const std::string& path) {
  const File file = File::open_to_read(path);
  std::vector<std::byte> chunk(1 << 20);
  Hasher hasher;
  for (std::uint64_t at = 0; const std::size_t got = file.read_some(chunk, at); at += got)
    hasher.add(std::span(chunk).first(got));
  return hasher.value();
}

std::string hex(std::uint64_t hash) { return fmt::format("{:016x}", hash); }

std::optional<std::uint64_t> from_hex(std::string_view digits) {
  if (digits.size() != 16 || digits.find_first_not_of("0123456789abcdef") != std::string_view::npos)
    return std::nullopt;
  std::uint64_t hash = 0;
  std::from_chars(digits.data(), digits.data() + digits.size(), hash, 16);
  return hash;
}

}  // namespace muster
