// The blocks of all inputs in order. Those of a compressed file come with their contents, since it can be read in order
// alone; the others are read where they are encoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/input.hpp"
#include "data/inputs/compressed.hpp"

namespace muster {

class InputBlocks {
 public:
  explicit InputBlocks(const std::vector<InputFile>& inputs) : inputs_(&inputs) {}

  // Some blocks, about `bytes` together; none at the end.
  std::vector<InputBlock> next(std::uint64_t bytes);

 private:
  static constexpr std::size_t most = 4096;

  InputBlock next_of(const InputFile& input);
  InputBlock next_of_compressed(const InputFile& input);
  // Appends about a block to rest_, unless the text ends.
  void read_on(const InputFile& input);

  const std::vector<InputFile>* inputs_;
  std::size_t file_ = 0;
  std::optional<std::uint64_t> at_;  // where the next block of a file begins; nothing: at its start

  // Of a compressed file.
  std::optional<Decompressor> stream_;
  std::string rest_;  // what is read and not handed out
  bool ended_ = false;
  std::uint64_t line_ = 1, told_bytes_ = 0;
};

}  // namespace muster
