#include "data/input_blocks.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "data/inputs/json_lines.hpp"

namespace muster {

std::vector<InputBlock> InputBlocks::next(std::uint64_t bytes) {
  std::vector<InputBlock> blocks;
  std::uint64_t taken = 0;
  while (file_ < inputs_->size() && taken < bytes && blocks.size() < most) {
    const InputFile& input = (*inputs_)[file_];
    blocks.push_back(input.compression == Compression::none ? next_of(input) : next_of_compressed(input));
    taken += blocks.back().end - blocks.back().begin;
    if (!blocks.back().last) continue;
    ++file_;
    at_.reset();
    stream_.reset();
  }
  return blocks;
}

InputBlock InputBlocks::next_of(const InputFile& input) {
  const std::uint64_t begin = at_.value_or(input.begin), end = std::min(begin + block_bytes, input.end);
  at_ = end;
  return {.file = &input, .begin = begin, .end = end, .last = end == input.end, .file_bytes = end - begin};
}

void InputBlocks::read_on(const InputFile& input) {
  const std::size_t before = rest_.size();
  rest_.resize(before + block_bytes);
  rest_.resize(before + stream_->read(std::span(rest_).subspan(before)));
  ended_ = rest_.size() < before + block_bytes;
  if (rest_.size() > longest_line + block_bytes) throw too_long_line(input.path, line_);
}

// Blocks of text are as long as they are without compression, so that the same hash divides them; those of lines end
// with a line.
InputBlock InputBlocks::next_of_compressed(const InputFile& input) {
  if (!stream_) {
    stream_.emplace(input.path, input.compression);
    rest_.clear();
    ended_ = false;
    line_ = 1;
    told_bytes_ = 0;
    at_ = 0;
  }
  const bool lines = input.kind == InputKind::json_lines;
  std::size_t size = std::string::npos;
  do {
    const std::size_t before = rest_.size();
    if (!ended_) read_on(input);
    if (!lines) {
      size = std::min<std::size_t>(rest_.size(), block_bytes);
    } else if (ended_) {
      size = rest_.size();
    } else {  // what was there before holds no end of a line, and may be long
      const std::size_t newline = std::string_view(rest_).substr(before).rfind('\n');
      size = newline == std::string_view::npos ? 0 : before + newline + 1;
    }
  } while (!ended_ && (size == 0 || (!lines && rest_.size() == size)));

  InputBlock block{.file = &input, .begin = *at_, .end = *at_ + size, .first_line = line_};
  block.contents = rest_.substr(0, size);
  rest_.erase(0, size);
  block.last = ended_ && rest_.empty();
  block.file_bytes = (block.last ? input.end : std::min(stream_->consumed(), input.end)) - told_bytes_;
  told_bytes_ += block.file_bytes;
  line_ += static_cast<std::uint64_t>(std::ranges::count(*block.contents, '\n'));
  at_ = block.end;
  return block;
}

}  // namespace muster
