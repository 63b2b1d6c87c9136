#include "core/hash.hpp"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <vector>
#include <xxhash.h>

#include "core/error.hpp"
#include "core/file.hpp"

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

}  // namespace muster
