// What is read of a shard is what was written, or is refused.
#include "data/block_hashes.hpp"

#include <cstring>

#include "core/hdf5.hpp"
#include "data/loader.hpp"
#include "data/shard_writer.hpp"
#include "data/tokenizer.hpp"
#include "tests/data/scratch.hpp"

namespace muster {
namespace {

class Blocks : public Scratch {
 protected:
  // One shard of u16 or u32, of documents of 1 to 97 tokens.
  void make(std::uint64_t tokens, std::uint32_t vocabulary) {
    std::filesystem::create_directories(path("d"));
    const auto tokenizer = make_id_tokenizer(vocabulary, {});
    DatasetInfo info{.tokenizer = tokenizer->describe(),
                     .tokenizer_hash = tokenizer->hash(),
                     .vocabulary = vocabulary,
                     .train = {},
                     .validation = {}};
    ShardWriter writer(path("d"), Split::train, info, tokens);
    const std::uint64_t size = size_of(info.token_type());
    std::uint32_t next = 1;
    for (std::uint64_t at = 0, length = 1; at < tokens; at += length, length = 1 + length * 7 % 97) {
      length = std::min(length, tokens - at);
      std::vector<std::byte> document(length * size);
      for (std::uint64_t i = 0; i < length; ++i, next = next * 5 % 65521)
        std::memcpy(document.data() + i * size, &next, size);
      writer.append(document);
      writer.end_document();
    }
    info.train.shards = writer.finish();
    write_dataset_info(path("d"), info);
    shard_ = path("d") + "/train-00000.h5";
  }
  void flip(const char* column, std::uint64_t byte) const {
    const std::uint64_t at = *H5File::open_to_read(shard_).dataset(column).file_offset() + byte;
    File file = File::open_to_update(shard_);
    std::byte value{};
    file.read_exactly(std::span(&value, 1), at);
    value ^= std::byte{1};
    file.write_at(std::span<const std::byte>(&value, 1), at);
  }

  std::string shard_;
  MemoryAccount account_;
};

TEST_F(Blocks, any_range_of_tokens_reads_the_same_with_and_without_hashes) {
  for (const std::uint32_t vocabulary : {65536u, 65537u})
    for (const std::uint64_t tokens : {1u, 1023u, 1024u, 1025u, 2049u, 20000u}) {
      make(tokens, vocabulary);
      const Dataset dataset(path("d"));
      const std::vector<Shard>& shards = dataset.shards(Split::train);
      const BlockHashes hashes(shards, dataset.info().train, true, account_);
      EXPECT_EQ(hashes.of_tokens(0).size(), (tokens + 1023) / 1024);
      for (const std::uint64_t begin : {0u, 1u, 1023u, 1024u, 1025u, 8191u, 8192u, 11000u})
        for (const std::uint64_t count : {1u, 2u, 1023u, 1024u, 1025u, 8192u, 8193u, 8194u, 9000u}) {
          if (begin + count > tokens) continue;
          std::vector<std::int32_t> checked(count), plain(count);
          shards[0].read_tokens(begin, checked, hashes.of_tokens(0));
          shards[0].read_tokens(begin, plain);
          ASSERT_EQ(checked, plain) << tokens << ": " << begin << " + " << count;
        }
      std::filesystem::remove_all(path("d"));
    }
}

TEST_F(Blocks, an_altered_token_is_found_by_whoever_reads_it_and_names_the_shard) {
  make(5000, 65536);
  const Dataset dataset(path("d"), Verify::full);
  const Shard& shard = dataset.shards(Split::train)[0];
  const BlockHashes hashes(dataset.shards(Split::train), dataset.info().train, true, account_);
  const auto reading = [&](std::uint64_t begin, std::uint64_t count) {
    std::vector<std::int32_t> tokens(count);
    return message_of([&] { shard.read_tokens(begin, tokens, hashes.of_tokens(0)); });
  };
  for (const std::uint64_t token : {0u, 1u, 1023u, 1024u, 1025u, 2048u, 4095u, 4999u}) {
    ASSERT_EQ(reading(0, 5000), "no error");
    flip("tokens", 2 * token);  // after the file was checked and opened
    for (const auto& [begin, count] :
         {std::pair{token, std::uint64_t{1}}, {std::uint64_t{0}, token + 1}, {token, 5000 - token}})
      EXPECT_TRUE(tells(reading(begin, count), {"train-00000.h5 is altered: tokens", "restore it"})) << token;
    flip("tokens", 2 * token);
  }
}

TEST_F(Blocks, a_loader_refuses_altered_tokens_and_document_ends_when_it_reads_them) {
  make(20000, 65536);
  const auto filling = [&](Verify verify, const char* column, std::uint64_t byte) {
    const Dataset dataset(path("d"), verify);
    const Loader::Options options{.sequence = 100, .seed = 1, .documents = true, .vocabulary = 65536};
    Loader loader({{&dataset}}, options, account_);
    flip(column, byte);
    const std::vector<Field> fields = Loader::fields(1, options);
    std::vector<std::byte> memory(Batch::bytes(fields));
    Batch batch(fields, memory);
    const std::string message = message_of([&] {
      for (std::int64_t slot = 0; slot < loader.samples(); ++slot) loader.fill(slot, 1, batch);
    });
    flip(column, byte);
    return message;
  };
  EXPECT_TRUE(tells(filling(Verify::automatic, "tokens", 2 * 7777), {"train-00000.h5 is altered: tokens"}));
  EXPECT_TRUE(tells(filling(Verify::automatic, "document_ends", 8 * 300),
                    {"train-00000.h5 is altered: document ends"}));
  EXPECT_EQ(filling(Verify::size, "tokens", 2 * 7777), "no error");
}

TEST_F(Blocks, altered_hashes_are_told_when_they_are_read) {
  make(5000, 65536);
  for (const char* column : {"token_hashes", "document_end_hashes"}) {
    const Dataset dataset(path("d"), Verify::full);
    flip(column, 4);
    EXPECT_TRUE(tells(
        message_of([&] { BlockHashes(dataset.shards(Split::train), dataset.info().train, true, account_); }),
        {"train-00000.h5 is altered", column}));
    flip(column, 4);
  }
}

TEST_F(Blocks, hashes_do_not_depend_on_the_pieces_in_which_bytes_arrive) {
  std::vector<std::byte> bytes(10000);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 31);
  std::vector<std::uint32_t> wanted;
  for (std::size_t at = 0; at < bytes.size(); at += 64)
    wanted.push_back(
        hash_of_block(std::span(bytes).subspan(at, std::min<std::size_t>(66, bytes.size() - at))));
  for (const std::size_t piece : {1u, 63u, 64u, 65u, 66u, 1000u, 10000u}) {
    BlockHasher hasher(64, 2);
    for (std::size_t at = 0; at < bytes.size(); at += piece)
      hasher.add(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
    EXPECT_EQ(hasher.finish(), wanted) << piece;
  }
}

}  // namespace
}  // namespace muster
