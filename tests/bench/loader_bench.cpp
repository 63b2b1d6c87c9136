// How many windows a second one core gets out of the loader: 2 GiB of tokens in 16 shards of two sources,
// warm, in permuted order, mixed, with document borders, every token hashed.
//
//   loader_bench FOLDER [WINDOWS]     the datasets are made in FOLDER if it does not hold them
#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fmt/core.h>
#include <string>
#include <vector>

#include "core/error.hpp"
#include "core/hash.hpp"
#include "core/memory.hpp"
#include "data/dataset.hpp"
#include "data/loader.hpp"
#include "data/permutation.hpp"
#include "data/shard_writer.hpp"
#include "data/tokenizer.hpp"

namespace {

using namespace muster;

constexpr std::uint64_t shard_tokens = std::uint64_t{64} << 20;
constexpr std::uint64_t shards_of_a_source = 8;
constexpr std::int64_t sequence = 1024, samples_at_once = 8;

// Random tokens in documents of 1 to 1,000 tokens.
void make_dataset(const std::string& folder, std::uint64_t seed) {
  std::filesystem::create_directories(folder);
  const auto tokenizer = make_id_tokenizer(50257, 50256);
  DatasetInfo info{.tokenizer = tokenizer->describe(),
                   .tokenizer_hash = tokenizer->hash(),
                   .vocabulary = tokenizer->vocabulary(),
                   .train = {},
                   .validation = {}};
  ShardWriter writer(folder, Split::train, info, shard_tokens);
  std::vector<std::uint16_t> document;
  std::uint64_t state = mix64(seed + 1);
  // A shard ends before the document that does not fit, so a little less than eight full shards makes eight.
  for (std::uint64_t left = shards_of_a_source * (shard_tokens - 1000); left > 0;) {
    document.resize(std::min(left, 1 + mix64(++state) % 1000));
    for (std::uint16_t& token : document) token = static_cast<std::uint16_t>(mix64(++state) % 50256);
    document.back() = 50256;
    writer.append(std::as_bytes(std::span(document)));
    writer.end_document();
    left -= document.size();
  }
  info.train.shards = writer.finish();
  write_dataset_info(folder, info);
}

void measure(const std::string& folder, std::int64_t windows) {
  std::vector<Dataset> datasets;
  for (const char* name : {"a", "b"}) {
    const std::string path = folder + "/" + name;
    if (!std::filesystem::exists(path + "/dataset.json")) make_dataset(path, datasets.size());
    datasets.emplace_back(path, Verify::full);  // reads everything, so that it is warm
  }
  MemoryAccount account;
  const Loader::Options options{.sequence = sequence, .seed = 1, .documents = true, .vocabulary = 50257};
  Loader loader({{&datasets[0], 0.7}, {&datasets[1], 0.3}}, options, account);

  const std::vector<Field> fields = Loader::fields(samples_at_once, options);
  std::vector<std::byte> memory(Batch::bytes(fields));
  Batch batch(fields, memory);
  Hasher hasher;
  std::int64_t valid = 0;
  const auto begin = std::chrono::steady_clock::now();
  const std::clock_t cpu_begin = std::clock();
  for (std::int64_t slot = 0; slot < windows; slot += samples_at_once) {
    loader.fill(slot, samples_at_once, batch);
    hasher.add(batch.bytes_of("tokens"));
    valid += batch.valid_targets;
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double cpu_seconds = static_cast<double>(std::clock() - cpu_begin) / CLOCKS_PER_SEC;
  fmt::print(
      "{:.0f} windows of {} tokens a second, {:.0f} a second of processor time ({} windows, {} valid "
      "targets, "
      "hash {})\n",
      static_cast<double>(windows) / seconds, sequence + 1, static_cast<double>(windows) / cpu_seconds,
      windows, valid, hex(hasher.value()));
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 2) {
    fmt::print("usage: loader_bench FOLDER [WINDOWS]\n");
    return static_cast<int>(ExitCode::user_error);
  }
  try {
    measure(arguments[1],
            count > 2 ? std::stoll(arguments[2]) / samples_at_once * samples_at_once : 2'000'000);
  } catch (const UserError& error) {
    fmt::print("loader_bench: {}\n", error.what());
    return static_cast<int>(ExitCode::user_error);
  }
}
