#include "data/dataset.hpp"

#include <algorithm>
#include <hdf5.h>
#include <numeric>

#include "core/hash.hpp"
#include "core/hdf5.hpp"
#include "core/json_text.hpp"
#include "tests/data/scratch.hpp"

namespace muster {
namespace {

class DatasetFiles : public Scratch {
 protected:
  void SetUp() override {
    Scratch::SetUp();
    dataset_ = make_dataset("dataset", {40, 40, 40, 40}, 90);  // two shards of two documents
    shard_ = dataset_ + "/train-00001.h5";
  }
  std::string opening(Verify verify = Verify::automatic) const {
    return message_of([&] { Dataset(dataset_, verify); });
  }
  // And seals it anew: only what it means is wrong.
  void replace_in_json(const std::string& from, const std::string& to) const {
    std::string text = read_text(dataset_ + "/dataset.json");
    const std::size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << text;
    text.replace(at, from.size(), to);
    File::create(dataset_ + "/dataset.json").write(sealed(text.substr(0, text.rfind(",\n\"xxh3\""))));
  }
  void flip_byte(const std::string& file, std::size_t at) const {
    std::string contents = read_text(file);
    contents[at] = static_cast<char>(contents[at] ^ 1);
    File::create(file).write(contents);
  }
  // Writes a shard anew, without hashes of blocks as in format 1, and makes dataset.json agree with its size and hash.
  template <class Change>
  void rewrite_shard(Change&& change) const {
    DatasetInfo info = read_dataset_info(dataset_);
    info.format = 1;
    std::erase_if(info.train.shards, [&](const ShardInfo& shard) { return shard.file != "train-00001.h5"; });
    info.train.shards[0].block_hashes.reset();
    H5File file = H5File::create(shard_);
    change(file, info);
    file.close();
    info.train.shards[0].bytes = std::filesystem::file_size(shard_);
    info.train.shards[0].hash = hash_file(shard_);
    write_dataset_info(dataset_, info);
  }
  static void write_shard(H5File& file, const DatasetInfo& info, std::uint16_t token, std::int64_t last_end) {
    file.set_attribute("/", "format_version", std::int64_t{1});
    file.set_attribute("/", "vocabulary", std::int64_t{info.vocabulary});
    file.set_attribute("/", "tokenizer_hash", hex(info.tokenizer_hash));
    std::vector<std::uint16_t> tokens(82, 65);
    tokens[50] = token;
    file.create_dataset("tokens", DType::u16, 82).write<std::uint16_t>(0, tokens);
    const std::vector<std::int64_t> ends = {41, last_end};
    file.create_dataset("document_ends", DType::i64, 2).write<std::int64_t>(0, ends);
  }

  std::string dataset_, shard_;
};

TEST_F(DatasetFiles, reads_back_what_it_wrote) {
  const DatasetInfo info = read_dataset_info(dataset_);
  EXPECT_EQ(info.train.shards.size(), 2u);
  EXPECT_EQ(info.train.tokens(), 164u);
  EXPECT_EQ(info.train.documents(), 4u);
  EXPECT_EQ(info.train.text_bytes, 160u);
  EXPECT_EQ(info.validation.tokens(), 0u);
  EXPECT_EQ(info.token_type(), DType::u16);
  const Dataset dataset(dataset_, Verify::full);
  std::vector<std::int32_t> tokens(3);
  dataset.shards(Split::train)[1].read_tokens(39, tokens);
  EXPECT_EQ(tokens, (std::vector<std::int32_t>{'c', 256, 'd'}));
}

TEST_F(DatasetFiles, a_missing_shard_is_named) {
  std::filesystem::remove(shard_);
  EXPECT_TRUE(tells(opening(), {"train-00001.h5 is missing", "prepare the dataset again"}));
}

TEST_F(DatasetFiles, a_torn_shard_is_named) {
  std::filesystem::resize_file(shard_, 1000);
  EXPECT_TRUE(tells(opening(Verify::size), {"train-00001.h5 has 1000 bytes", "restore it"}));
}

TEST_F(DatasetFiles, a_shard_cut_short_while_it_is_read_is_an_error_and_no_crash) {
  const Dataset dataset(dataset_);
  std::filesystem::resize_file(shard_, 100);
  std::vector<std::int32_t> tokens(10);
  EXPECT_TRUE(tells(message_of([&] { dataset.shards(Split::train)[1].read_tokens(0, tokens); }),
                    {"train-00001.h5 is cut short", "restore it"}));
}

TEST_F(DatasetFiles, a_flipped_bit_is_found_by_the_checksum) {
  const auto offset = H5File::open_to_read(shard_).dataset("tokens").file_offset();
  ASSERT_TRUE(offset);
  flip_byte(shard_, *offset + 7);
  EXPECT_TRUE(tells(opening(Verify::full), {"train-00001.h5 is altered", "checksum", "restore it"}));
  EXPECT_TRUE(tells(opening(Verify::automatic), {"train-00001.h5 is altered"}));
  EXPECT_EQ(opening(Verify::size), "no error");
}

// Only the checksum finds all damage; without it, damage to the structure of the file is an error or has no
// effect.
TEST_F(DatasetFiles, a_damaged_structure_never_crashes) {
  const std::string whole = read_text(shard_);
  for (std::size_t at = 0; at < whole.size(); at += 3) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(~damaged[at]);
    File::create(shard_).write(damaged);
    const std::string message = opening(Verify::size);
    EXPECT_TRUE(message == "no error" || tells(message, {"train-00001.h5"})) << at << ": " << message;
  }
}

TEST_F(DatasetFiles, a_shard_of_another_tokenizer_is_named) {
  rewrite_shard([](H5File& file, DatasetInfo info) {
    ++info.tokenizer_hash;
    write_shard(file, info, 65, 82);
  });
  EXPECT_TRUE(tells(opening(), {"train-00001.h5", "another tokenizer", "prepare the dataset again"}));
}

TEST_F(DatasetFiles, a_shard_of_another_vocabulary_is_named) {
  rewrite_shard([](H5File& file, DatasetInfo info) {
    info.vocabulary = 300;
    write_shard(file, info, 65, 82);
  });
  EXPECT_TRUE(tells(opening(), {"train-00001.h5", "vocabulary of 300", "257"}));
}

TEST_F(DatasetFiles, a_token_outside_the_vocabulary_is_named_by_file_and_offset) {
  rewrite_shard([](H5File& file, const DatasetInfo& info) { write_shard(file, info, 257, 82); });
  const Dataset dataset(dataset_);
  std::vector<std::int32_t> tokens(20);
  const auto read = [&](std::uint64_t at) {
    return message_of([&] { dataset.shards(Split::train)[0].read_tokens(at, tokens); });
  };
  EXPECT_TRUE(tells(read(40), {"token 257 at offset 50", "train-00001.h5", "vocabulary of 257"}));
  EXPECT_EQ(read(51), "no error");
}

TEST_F(DatasetFiles, a_shard_that_contradicts_dataset_json_is_named) {
  rewrite_shard([](H5File& file, const DatasetInfo& info) { write_shard(file, info, 65, 81); });
  EXPECT_TRUE(tells(opening(), {"train-00001.h5", "ends at 81 of 82 tokens"}));
  rewrite_shard([](H5File& file, const DatasetInfo& info) {
    write_shard(file, info, 65, 82);
    file.set_attribute("/", "more", std::int64_t{1});
  });
  EXPECT_EQ(opening(), "no error");
  replace_in_json("\"tokens\": 82", "\"tokens\": 81");
  EXPECT_TRUE(tells(opening(), {"train-00001.h5 holds 82 tokens", "dataset.json 81"}));
}

TEST_F(DatasetFiles, a_shard_of_a_later_format_or_none_is_named) {
  rewrite_shard(
      [](H5File& file, const DatasetInfo&) { file.set_attribute("/", "format_version", std::int64_t{2}); });
  EXPECT_TRUE(tells(opening(), {"train-00001.h5 is of format 2", "its dataset of 1"}));
  rewrite_shard([](H5File&, const DatasetInfo&) {});
  EXPECT_TRUE(tells(opening(), {"format_version", "train-00001.h5 is missing"}));
}

TEST_F(DatasetFiles, a_damaged_dataset_json_is_named) {
  EXPECT_TRUE(tells(message_of([&] { Dataset(path("nowhere")); }),
                    {"nowhere holds no dataset.json", "muster prepare"}));
  replace_in_json("\"format\": 2", "\"format\": 3");
  EXPECT_TRUE(tells(opening(), {"dataset.json is of format 3", "known are 1 to 2"}));
  replace_in_json("\"format\": 3", "\"format\": 2");
  replace_in_json("\"vocabulary\":257", "\"vocabulary\":258");
  EXPECT_TRUE(tells(opening(), {"dataset.json", "restore the file"}));
  replace_in_json("\"vocabulary\":258", "\"vocabulary\":257");
  ASSERT_EQ(opening(), "no error");
  replace_in_json("\"tokenizer_hash\": \"", "\"tokenizer_hash\": \"1");
  EXPECT_TRUE(tells(opening(), {"dataset.json", "the dataset again"}));
  replace_in_json("\"tokenizer_hash\": \"1", "\"tokenizer_hash\": \"");
  replace_in_json("\"xxh3\": \"", "\"xxh3\": \"no");
  EXPECT_TRUE(tells(opening(), {"dataset.json cannot be read", "restore it"}));
  replace_in_json("\"xxh3\": \"no", "\"xxh3\": \"");
  for (const char* no_count : {"-1", "1e300", "1.5", "null"}) {
    replace_in_json("\"text_bytes\": ", std::string("\"text_bytes\": ") + no_count + ", \"was\": ");
    EXPECT_TRUE(tells(opening(), {"dataset.json cannot be read", "is no count"}));
    replace_in_json(std::string("\"text_bytes\": ") + no_count + ", \"was\": ", "\"text_bytes\": ");
  }
  replace_in_json("train-00000.h5", "../train-00000.h5");
  EXPECT_TRUE(tells(opening(), {"dataset.json", "outside the folder"}));
  replace_in_json("../train-00000.h5", "train-00001.h5");
  EXPECT_TRUE(tells(opening(), {"dataset.json", "train-00001.h5", "listed twice"}));
  replace_in_json("\"tokenizer\": {",
                  "\"deep\": " + std::string(48000, '[') + std::string(48000, ']') + ",\n\"tokenizer\": {");
  EXPECT_TRUE(tells(opening(), {"dataset.json", "nested too deeply"}));
  File::create(dataset_ + "/dataset.json").write("{\"format\": 1,");
  EXPECT_TRUE(tells(opening(), {"dataset.json cannot be read"}));
  File::create(dataset_ + "/dataset.json").write("");
  EXPECT_TRUE(tells(opening(), {"dataset.json cannot be read"}));
}

TEST_F(DatasetFiles, a_change_of_any_byte_of_dataset_json_is_found) {
  const std::string whole = read_text(dataset_ + "/dataset.json");
  for (std::size_t at = 0; at < whole.size(); ++at) {
    flip_byte(dataset_ + "/dataset.json", at);
    EXPECT_TRUE(tells(opening(), {"dataset.json"})) << at << ": " << opening();
    File::create(dataset_ + "/dataset.json").write(whole);
  }
  EXPECT_EQ(opening(), "no error");
}

TEST_F(DatasetFiles, held_out_text_that_is_trained_on_is_refused_in_format_1_too) {
  const std::string stored = "tests/system/fixtures/format-1/data", copy = path("format-1");
  std::filesystem::copy(stored, copy);
  ASSERT_EQ(message_of([&] { Dataset{copy}; }), "no error");
  std::string text = read_text(copy + "/dataset.json");
  const std::string name = "validation-00000.h5";
  File::create(copy + "/dataset.json").write(text.replace(text.find(name), name.size(), "train-00000.h5"));
  EXPECT_TRUE(tells(message_of([&] { Dataset{copy}; }), {"dataset.json", "train-00000.h5", "listed twice"}));
}

TEST_F(DatasetFiles, it_says_how_it_is_checked) {
  EXPECT_TRUE(tells(Dataset(dataset_).describe_checks(), {"its bytes were checked", "when it is read"}));
  EXPECT_TRUE(
      tells(Dataset(dataset_, Verify::size).describe_checks(), {"its sizes", "data.verify = \"size\""}));
  const std::string stored = "tests/system/fixtures/format-1/data";
  EXPECT_TRUE(tells(Dataset(stored).describe_checks(),
                    {"its bytes were checked, and nothing when it is read", "format 1"}));
}

// Someone packed a shard: the elements no longer lie in one plain piece.
TEST_F(DatasetFiles, a_compressed_shard_reads_the_same) {
  std::vector<std::int32_t> before(82), after(82);
  std::vector<std::int64_t> ends(2);
  Dataset(dataset_).shards(Split::train)[1].read_tokens(0, before);
  rewrite_shard([&](H5File& file, const DatasetInfo& info) {
    file.set_attribute("/", "format_version", std::int64_t{1});
    file.set_attribute("/", "vocabulary", std::int64_t{info.vocabulary});
    file.set_attribute("/", "tokenizer_hash", hex(info.tokenizer_hash));
    file.close();
    const H5Handle raw(H5Fopen(shard_.c_str(), H5F_ACC_RDWR, H5P_DEFAULT), H5Fclose);
    const hsize_t length = 82, two = 2, chunk = 16, one = 1;
    const auto add = [&](const char* name, hid_t type, hsize_t count, hsize_t piece, const void* values) {
      const H5Handle space(H5Screate_simple(1, &count, nullptr), H5Sclose);
      const H5Handle creation(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      ASSERT_GE(H5Pset_chunk(creation.id(), 1, &piece), 0);
      ASSERT_GE(H5Pset_deflate(creation.id(), 1), 0);
      const H5Handle dataset(
          H5Dcreate2(raw.id(), name, type, space.id(), H5P_DEFAULT, creation.id(), H5P_DEFAULT), H5Dclose);
      ASSERT_GE(H5Dwrite(dataset.id(), H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, values), 0);
    };
    const std::vector<std::int32_t> both = {41, 82};
    add("tokens", H5T_STD_U16LE, length, chunk, before.data());
    add("document_ends", H5T_STD_I64LE, two, one, both.data());
  });
  const Dataset dataset(dataset_);
  const Shard& shard = dataset.shards(Split::train)[0];
  shard.read_tokens(0, after);
  shard.read_document_ends(0, ends);
  EXPECT_EQ(before, after);
  EXPECT_EQ(ends, (std::vector<std::int64_t>{41, 82}));
}

}  // namespace
}  // namespace muster
