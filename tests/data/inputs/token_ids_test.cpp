// Token files: plain ids, .npy, the headers of llm.c and LLM.Q, Megatron's index.
#include "data/inputs/token_ids.hpp"

#include <algorithm>
#include <filesystem>
#include <numeric>

#include "core/parallel.hpp"
#include "tests/data/prepare_fixture.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

constexpr std::uint32_t end_of_long = 1000;

// Documents longer than what is hashed of them, so that many cross blocks of the input, each behind the one before it.
std::vector<std::vector<std::uint32_t>> long_documents() {
  std::vector<std::vector<std::uint32_t>> all(40);
  for (std::uint32_t i = 0; i < all.size(); ++i) {
    for (std::uint32_t j = 0; j < 20000 + 3000 * i; ++j) all[i].push_back((i * 31 + j * 7) % end_of_long);
    all[i].push_back(end_of_long);
  }
  return all;
}

PrepareOptions half_of_long_documents() {
  PrepareOptions options;
  options.validation = 0.5;
  options.vocabulary = end_of_long + 1;
  options.end_token = end_of_long;
  options.token_type = "u32";
  return options;
}

TEST_F(Prepare, ids_of_every_type_make_the_same_documents) {
  const std::vector<int> ids = {5, 6, 9, 9, 7, 9, 8};
  const std::vector<std::vector<std::int32_t>> wanted = {{5, 6, 9}, {9}, {7, 9}, {8, 9}};
  const auto as = [&]<class T>(T) { return raw(std::vector<T>(ids.begin(), ids.end())); };
  PrepareOptions options = all_train();
  options.vocabulary = 10;
  options.end_token = 9;
  int number = 0;
  const auto expect = [&](const std::string& file, const std::string& contents) {
    const std::string out = path("out" + std::to_string(number++));
    prepare({write(file, contents)}, out, options);
    EXPECT_EQ(documents(Dataset(out), Split::train), wanted) << file;
  };
  expect("u2.npy", npy("<u2", "(7,)", as(std::uint16_t{})));
  expect("u4.npy", npy("<u4", "(7,)", as(std::uint32_t{})));
  expect("i4.npy", npy("<i4", "(7,)", as(std::int32_t{})));
  expect("i8.npy", npy("<i8", "(7,)", as(std::int64_t{})));
  expect("u8.npy", npy("<u8", "(7,)", as(std::uint64_t{})));
  expect("u1.npy", npy("|u1", "(7,)", as(std::uint8_t{})));
  options.token_type = "u16";
  expect("u16.bin", as(std::uint16_t{}));
  options.token_type = "u32";
  expect("u32.bin", as(std::uint32_t{}));
  options.end_token.reset();
  prepare({path("u32.bin")}, path("whole"), options);
  EXPECT_EQ(documents(Dataset(path("whole")), Split::train),
            (std::vector<std::vector<std::int32_t>>{{5, 6, 9, 9, 7, 9, 8}}));
}

// 256 numbers, as llm.c and LLM.Q put before their tokens.
std::string header(std::vector<std::uint32_t> words) {
  words.resize(256, 0x2a2a2a2a);
  return raw(words);
}
const std::uint32_t bin_tok[] = {0x2e4e4942, 0x0a4b4f54};

TEST_F(Prepare, known_headers_of_token_files_are_read_and_not_trained_on) {
  const std::vector<std::uint16_t> narrow = {5, 6, 9, 7};
  const std::vector<std::uint32_t> wide = {5, 6, 9, 7};
  PrepareOptions options = all_train();
  options.vocabulary = 10;
  int number = 0;
  const auto expect = [&](const std::string& contents, const std::string& type) {
    const std::string out = path("out" + std::to_string(number++));
    for (const std::string& given : {std::string(), type}) {
      options.token_type = given;
      prepare({write("a.bin", contents)}, out, options);
      EXPECT_EQ(documents(Dataset(out), Split::train),
                (std::vector<std::vector<std::int32_t>>{{5, 6, 9, 7}}));
      fs::remove_all(out);
    }
  };
  expect(header({20240520, 1, 4}) + raw(narrow), "u16");
  expect(header({20240801, 7, 4}) + raw(wide), "u32");
  expect(header({bin_tok[0], bin_tok[1], 1, 4, 4}) + raw(wide), "u32");
  const std::string llm_q = header({bin_tok[0], bin_tok[1], 2, 4, 4, 12, 0}) + raw(wide);
  expect(llm_q, "u32");
  options.vocabulary.reset();
  EXPECT_EQ(prepare({write("a.bin", llm_q)}, path("told"), options).vocabulary, 12u);

  const auto message = [&](const std::string& contents, const std::string& type) {
    options.token_type = type;
    return message_of([&] { prepare({write("a.bin", contents)}, path("out"), options); });
  };
  options.vocabulary = 10;
  EXPECT_TRUE(tells(message(header({20240520, 1, 4}) + raw(narrow), "u32"),
                    {"a.bin", "u16 tokens by its header of llm.c", "leave out --token-type u32"}));
  EXPECT_TRUE(
      tells(message(header({20240520, 1, 5}) + raw(narrow), ""), {"1032 bytes", "5 tokens", "restore"}));
  EXPECT_TRUE(tells(message(header({20240520, 2, 4}) + raw(narrow), ""), {"version 2", "without a header"}));
  EXPECT_TRUE(tells(message(header({20240801, 1, 4}) + raw(wide), ""), {"version 1", "known is 7"}));
  EXPECT_TRUE(
      tells(message(header({bin_tok[0], bin_tok[1], 3, 4, 4}) + raw(wide), ""), {"LLM.Q", "version 3"}));
  EXPECT_TRUE(tells(message(header({bin_tok[0], bin_tok[1], 2, 4, 4, 12, 1}) + raw(wide), ""), {"mask"}));
}

// The index of Megatron, of sequences of these lengths; documents start at these sequences.
std::string megatron_index(std::uint8_t type, std::uint64_t token_bytes,
                           const std::vector<std::int32_t>& lengths,
                           const std::vector<std::int64_t>& documents) {
  std::vector<std::int64_t> starts;
  std::int64_t at = 0;
  for (const std::int32_t length : lengths) {
    starts.push_back(at);
    at += length * static_cast<std::int64_t>(token_bytes);
  }
  return std::string("MMIDIDX\0\0", 9) + raw<std::uint64_t>({1}) + raw<std::uint8_t>({type}) +
         raw<std::uint64_t>({lengths.size()}) + raw<std::uint64_t>({documents.size()}) + raw(lengths) +
         raw(starts) + raw(documents);
}

TEST_F(Prepare, the_index_of_megatron_tells_where_documents_end) {
  const std::vector<std::uint16_t> ids = {5, 6, 9, 7, 8, 9, 9, 1};
  PrepareOptions options = all_train();
  options.vocabulary = 10;
  const std::string bin = write("in/a.bin", raw(ids));
  // Two sequences are the first document, an empty one follows.
  const std::string idx = write("in/a.idx", megatron_index(8, 2, {2, 1, 0, 4, 1}, {0, 2, 3, 4, 5}));
  int number = 0;
  const auto expect = [&](const std::vector<std::string>& inputs,
                          const std::vector<std::vector<std::int32_t>>& wanted) {
    const std::string out = path("out" + std::to_string(number++));
    prepare(inputs, out, options);
    EXPECT_EQ(documents(Dataset(out), Split::train), wanted);
  };
  const std::vector<std::vector<std::int32_t>> wanted = {{5, 6, 9}, {7, 8, 9, 9}, {1}};
  for (const auto& inputs : std::vector<std::vector<std::string>>{{bin}, {idx}, {bin, idx}, {path("in")}})
    expect(inputs, wanted);
  options.end_token = 9;  // is no border here, and is added where it is missing
  expect({bin}, {{5, 6, 9}, {7, 8, 9, 9}, {1, 9}});
  options.end_token.reset();
  write("in/a.idx", megatron_index(8, 2, {8}, {0}));  // as some write it, without the last entry
  expect({bin}, {{5, 6, 9, 7, 8, 9, 9, 1}});
  write("in/a.bin", raw(std::vector<std::int32_t>(ids.begin(), ids.end())));
  write("in/a.idx", megatron_index(4, 4, {3, 4, 1}, {0, 1, 2, 3}));
  expect({bin}, wanted);

  const auto message = [&](const std::string& index) {
    write("in/a.idx", index);
    return message_of([&] { prepare({bin}, path("out"), options); });
  };
  const std::string good = megatron_index(4, 4, {3, 4, 1}, {0, 1, 2, 3});
  EXPECT_TRUE(tells(message(good.substr(0, 20)), {"a.idx is cut short"}));
  EXPECT_TRUE(tells(message(good.substr(0, good.size() - 1)), {"a.idx is cut short"}));
  EXPECT_TRUE(tells(message(megatron_index(7, 4, {3, 4, 1}, {0, 1, 2, 3})), {"type 7", "integers"}));
  EXPECT_TRUE(
      tells(message(megatron_index(4, 4, {3, 4}, {0, 1, 2})), {"a.bin", "32 bytes", "28 are expected"}));
  EXPECT_TRUE(tells(message(megatron_index(4, 2, {3, 4, 1}, {0, 1, 2, 3})), {"sequence 1", "byte 12"}));
  EXPECT_TRUE(
      tells(message(megatron_index(4, 4, {3, 4, 1}, {0, 2, 1, 3})), {"a document starts at sequence 1"}));
  EXPECT_TRUE(tells(message(megatron_index(4, 4, {3, 4, 1}, {0, 1, 2, 4})), {"sequence 4 of 3"}));
  EXPECT_TRUE(tells(message(megatron_index(4, 4, {9, -1}, {0, 1, 2})), {"sequence 1", "-1 tokens"}));
  std::string huge = good;
  huge.replace(18, 8, 8, '\xFF');
  EXPECT_TRUE(tells(message(huge), {"a.idx is cut short"}));
  write("in/a.idx", good);
  options.token_type = "u16";
  EXPECT_TRUE(tells(message(good), {"i32 tokens by its index", "leave out --token-type u16"}));
  fs::remove(bin);
  EXPECT_TRUE(tells(message_of([&] { prepare({idx}, path("out"), options); }), {"a.bin", "missing"}));
}

TEST_F(Prepare, documents_of_megatron_cross_blocks_whole_and_divide_as_those_of_end_tokens) {
  std::vector<std::uint32_t> ids;
  std::vector<std::int32_t> lengths;
  std::vector<std::int64_t> firsts = {0};
  for (const std::vector<std::uint32_t>& document : long_documents()) {
    ids.insert(ids.end(), document.begin(), document.end());
    lengths.push_back(static_cast<std::int32_t>(document.size()));
    firsts.push_back(static_cast<std::int64_t>(lengths.size()));
  }
  PrepareOptions options = half_of_long_documents();
  prepare({write("a.bin", raw(ids))}, path("a"), options);
  options.token_type.clear();
  write("b.bin", raw(std::vector<std::int32_t>(ids.begin(), ids.end())));
  write("b.idx", megatron_index(4, 4, lengths, firsts));
  prepare({path("b.bin")}, path("b"), options);
  for (const Split split : {Split::train, Split::validation}) {
    EXPECT_EQ(documents(Dataset(path("a")), split), documents(Dataset(path("b")), split));
    EXPECT_GT(documents(Dataset(path("b")), split).size(), 5u);
  }
}

TEST_F(Prepare, a_large_vocabulary_is_stored_in_32_bits) {
  PrepareOptions options = all_train();
  options.vocabulary = 100000;
  options.end_token = 99999;
  options.token_type = "u32";
  const std::vector<std::uint32_t> ids = {1, 70000, 99999};
  const DatasetInfo info = prepare({write("a.bin", raw(ids))}, path("out"), options);
  EXPECT_EQ(info.token_type(), DType::u32);
  EXPECT_EQ(documents(Dataset(path("out")), Split::train),
            (std::vector<std::vector<std::int32_t>>{{1, 70000, 99999}}));
}

TEST_F(Prepare, the_split_of_ids_does_not_depend_on_where_a_document_lies) {
  std::vector<std::uint32_t> ids;
  for (const std::vector<std::uint32_t>& document : long_documents())
    ids.insert(ids.end(), document.begin(), document.end());
  const PrepareOptions options = half_of_long_documents();
  prepare({write("a.bin", raw(ids))}, path("a"), options);
  ids.insert(ids.begin(), {3, 1, 4, 1, 1000});  // everything moves
  ids.pop_back();                               // and the last end is left to prepare
  prepare({write("b.bin", raw(ids))}, path("b"), options);
  for (const Split split : {Split::train, Split::validation}) {
    auto a = documents(Dataset(path("a")), split), b = documents(Dataset(path("b")), split);
    std::erase_if(b, [](const auto& document) { return document.size() == 5; });
    EXPECT_EQ(a, b);
    EXPECT_GT(a.size(), 5u);
  }
}

TEST_F(Prepare, holds_out_the_end_of_token_files_without_an_end_token) {
  PrepareOptions options;
  options.vocabulary = 1000;
  options.token_type = "u16";
  options.validation = 0.25;
  std::vector<std::uint16_t> ids(1000);
  std::iota(ids.begin(), ids.end(), std::uint16_t{0});
  prepare({write("a.bin", raw(ids)), write("one.bin", raw(std::vector<std::uint16_t>{5}))}, path("out"),
          options);
  const auto train = documents(Dataset(path("out")), Split::train);
  const auto held_out = documents(Dataset(path("out")), Split::validation);
  ASSERT_EQ(train.size(), 2u);
  EXPECT_EQ(train[0].size(), 750u);
  ASSERT_EQ(held_out.size(), 1u);
  EXPECT_EQ(held_out[0].size(), 250u);
  EXPECT_EQ(held_out[0][0], 750);
}
// NumPy pads a header with spaces; as many as there is room for are no fault.
TEST_F(Prepare, a_header_of_npy_may_be_long_and_is_read_without_recursion) {
  const std::string spaces(60000, ' ');
  PrepareOptions options = all_train();
  options.vocabulary = 10;
  const std::vector<std::uint16_t> ids = {1, 2, 3};
  const auto header = [&](const std::string& start) {
    return "\x93NUMPY\x01" + std::string(1, '\0') + static_cast<char>(start.size() % 256) +
           static_cast<char>(start.size() / 256) + start;
  };
  const std::string padded = "{'descr': " + spaces + "'<u2', 'fortran_order': False, 'shape': (3,), }\n";
  prepare({write("padded.npy", header(padded) + raw(ids))}, path("out"), options);
  EXPECT_EQ(documents(Dataset(path("out")), Split::train),
            (std::vector<std::vector<std::int32_t>>{{1, 2, 3}}));
  for (const std::string& torn :
       {"{'descr':" + spaces, "{'descr': '<u2', 'shape':" + spaces, spaces,
        std::string("{'descr': '<u2', 'shape': (3"), std::string("{'descr': '<u2', 'shape': (-3,)}"),
        std::string("{'descr': '<u2', 'shape': (9999999999999999999,)}"),
        std::string("{'descr': '<f4', 'shape': (3,)}"), std::string("{'descr': '<u2', 'shape': (3,4)}")})
    EXPECT_TRUE(tells(
        message_of([&] { prepare({write("torn.npy", header(torn) + raw(ids))}, path("none"), options); }),
        {"torn.npy", "holds another kind of array", "numpy.save"}));
}

}  // namespace
}  // namespace muster
