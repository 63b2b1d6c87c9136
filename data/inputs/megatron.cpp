#include "data/inputs/megatron.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <span>

#include "core/error.hpp"
#include "data/inputs/token_ids.hpp"

namespace muster {
namespace {

constexpr std::string_view magic{"MMIDIDX\0\0", 9};
constexpr std::uint64_t lists_at = 34;

template <class T>
T number_at(const File& file, std::uint64_t at) {
  T value{};
  file.read_exactly(std::as_writable_bytes(std::span(&value, 1)), at);
  return value;
}

// Calls take(value) for `count` numbers from `at` on.
template <class T, class Take>
void for_each_number(const File& file, std::uint64_t at, std::uint64_t count, const Take& take) {
  std::vector<T> some(std::min<std::uint64_t>(count, 65536));
  while (count > 0) {
    const auto part = std::span(some).first(std::min<std::uint64_t>(count, some.size()));
    file.read_exactly(std::as_writable_bytes(part), at);
    for (const T value : part) take(value);
    at += part.size_bytes();
    count -= part.size();
  }
}

}  // namespace

bool MegatronIndex::is_one(const std::string& path) {
  std::error_code none;
  if (!std::filesystem::is_regular_file(path, none)) return false;
  std::array<char, magic.size()> start{};
  return File::open_to_read(path).read_some(std::as_writable_bytes(std::span(start)), 0) == magic.size() &&
         std::string_view(start.data(), start.size()) == magic;
}

std::string MegatronIndex::beside(const std::string& bin) {
  return std::filesystem::path(bin).replace_extension(".idx").string();
}

MegatronIndex::MegatronIndex(const std::string& path) : file_(File::open_to_read(path)) {
  if (file_.size() < lists_at) throw UserError("{} is cut short: restore it or write it again", path);
  if (const auto version = number_at<std::uint64_t>(file_, 9); version != 1)
    throw UserError("{} is an index of Megatron of version {}, known is 1: write it again with that", path,
                    version);
  constexpr std::array types = {std::pair{1, IdType::u8},  std::pair{2, IdType::i8},
                                std::pair{3, IdType::i16}, std::pair{4, IdType::i32},
                                std::pair{5, IdType::i64}, std::pair{8, IdType::u16}};
  const int code = number_at<std::uint8_t>(file_, 17);
  const auto type = std::find_if(types.begin(), types.end(), [&](const auto& t) { return t.first == code; });
  if (type == types.end())
    throw UserError("{} tells of numbers of type {}, which are no tokens: write integers", path, code);
  type_ = type->second;
  sequences_ = number_at<std::uint64_t>(file_, 18);
  documents_ = number_at<std::uint64_t>(file_, 26);
  // Without overflow, however large the counts are.
  const std::uint64_t room = file_.size() - lists_at;
  if (sequences_ > room / 12 || documents_ > (room - sequences_ * 12) / 8)
    throw UserError(
        "{} is cut short: it tells of {} sequences and {} documents in {} bytes: restore it or write it "
        "again",
        path, sequences_, documents_, file_.size());
}

void MegatronIndex::check_against(const std::string& bin, std::uint64_t bytes) const {
  const auto refuse = [&](const std::string& what) {
    return UserError("{} is not the index of {}: {}: restore both or write them again", file_.path(), bin,
                     what);
  };
  // The end of each sequence follows from its start and length: the next one starts there.
  std::uint64_t length_at = lists_at, expected = 0;
  const std::uint64_t starts_at = lists_at + 4 * sequences_;
  constexpr std::uint64_t batch = 65536;
  for (std::uint64_t done = 0; done < sequences_; done += batch) {
    const std::uint64_t count = std::min(batch, sequences_ - done);
    std::vector<std::int64_t> starts;
    for_each_number<std::int64_t>(file_, starts_at + 8 * done, count,
                                  [&](std::int64_t start) { starts.push_back(start); });
    std::size_t i = 0;
    for_each_number<std::int32_t>(file_, length_at, count, [&](std::int32_t length) {
      if (length < 0 || std::cmp_not_equal(starts[i], expected))
        throw refuse(fmt::format("sequence {} starts at byte {} with {} tokens, where byte {} is expected",
                                 done + i, starts[i], length, expected));
      expected += static_cast<std::uint64_t>(length) * size_of(type_);
      ++i;
    });
    length_at += 4 * count;
  }
  if (expected != bytes) throw refuse(fmt::format("that has {} bytes, and {} are expected", bytes, expected));
  std::int64_t before = 0;
  for_each_number<std::int64_t>(file_, starts_at + 8 * sequences_, documents_, [&](std::int64_t first) {
    if (first < before || std::cmp_greater(first, sequences_))
      throw refuse(fmt::format("a document starts at sequence {} of {}", first, sequences_));
    before = first;
  });
}

std::uint64_t MegatronIndex::border(std::uint64_t document, std::uint64_t bytes) const {
  const std::uint64_t starts_at = lists_at + 4 * sequences_;
  const auto sequence = number_at<std::uint64_t>(file_, starts_at + 8 * (sequences_ + document));
  return sequence < sequences_ ? number_at<std::uint64_t>(file_, starts_at + 8 * sequence) : bytes;
}

std::vector<std::uint64_t> MegatronIndex::borders(std::uint64_t begin, std::uint64_t end,
                                                  std::uint64_t bytes) const {
  // The first that does not lie before `begin`.
  std::uint64_t low = 0, high = documents_;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (border(middle, bytes) < begin)
      low = middle + 1;
    else
      high = middle;
  }
  std::vector<std::uint64_t> found;
  const auto add = [&](std::uint64_t at) {
    if (at >= begin && at <= end && (found.empty() || found.back() < at)) found.push_back(at);
  };
  if (begin == 0) add(0);  // whatever the index says
  for (; low < documents_; ++low) {
    const std::uint64_t at = border(low, bytes);
    if (at > end) break;
    add(at);
  }
  add(bytes);
  return found;
}

InputFile examine_megatron(const std::string& bin, const std::string& token_type) {
  const std::string path = MegatronIndex::beside(bin);
  const MegatronIndex index(path);
  if (!token_type.empty() && token_type != name_of(index.type()))
    throw UserError("{} holds {} tokens by its index {}: leave out --token-type {}", bin,
                    name_of(index.type()), path, token_type);
  const std::uint64_t bytes = File::open_to_read(bin).size();
  index.check_against(bin, bytes);
  return {
      .path = bin, .kind = InputKind::ids, .begin = 0, .end = bytes, .id_type = index.type(), .index = path};
}

}  // namespace muster
