// A shard of a dataset whose bytes are not checked, with a dataset.json that agrees with it.
#include "data/shard.hpp"

#include <algorithm>
#include <vector>

#include "data/dataset.hpp"
#include "data/tokenizer.hpp"
#include "tests/fuzz/target.hpp"

void muster::fuzz::read(std::string_view bytes) {
  const auto tokenizer = make_tokenizer("bytes");
  const DatasetInfo dataset{.tokenizer = tokenizer->describe(),
                            .tokenizer_hash = tokenizer->hash(),
                            .vocabulary = tokenizer->vocabulary(),
                            .train = {},
                            .validation = {}};
  const std::string path = write("shard.h5", bytes);
  ShardInfo info{.file = "shard.h5", .bytes = bytes.size()};
  {
    const H5File file = H5File::open_to_read(path);
    info.tokens = file.dataset("tokens").length();
    info.documents = file.dataset("document_ends").length();
  }
  const Shard shard(folder(), dataset, info, false);
  // The lengths may be untrue, so a part is read at both ends.
  const auto ends_of = [](std::uint64_t length, auto&& read_at, auto& part) {
    part.resize(std::min<std::uint64_t>(length, 20000));
    read_or_refuse([&] { read_at(0); });
    read_or_refuse([&] { read_at(length - part.size()); });
  };
  std::vector<std::int32_t> tokens;
  ends_of(
      shard.tokens(), [&](std::uint64_t at) { shard.read_tokens(at, tokens); }, tokens);
  std::vector<std::int64_t> ends;
  ends_of(
      shard.documents(), [&](std::uint64_t at) { shard.read_document_ends(at, ends); }, ends);
}
