// Text and JSON lines compressed by gzip (RFC 1952) or Zstandard (RFC 8878), known by their first bytes, read in order
// and in bounded memory. Several members or frames one after the other are one text, as their tools write them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace muster {

enum class Compression : std::uint8_t { none, gzip, zstd };

// By the first bytes of a file. UserError for other compressed files, with the way to mend it.
Compression compression_of(const std::string& path, std::string_view start);

class Decompressor {
 public:
  Decompressor(const std::string& path, Compression compression);
  ~Decompressor();

  // Fills all of `bytes` unless the text ends before; how many. UserError if the file is damaged or cut short.
  std::size_t read(std::span<char> bytes);
  // How much of the file has been taken in.
  std::uint64_t consumed() const;

 private:
  class Stream;
  class Gzip;
  class Zstd;
  std::unique_ptr<Stream> stream_;
};

}  // namespace muster
