#include "data/inputs/compressed.hpp"

#include <filesystem>
#include <zlib.h>
#include <zstd.h>

#include "core/parallel.hpp"
#include "data/input.hpp"
#include "tests/data/prepare_fixture.hpp"

namespace muster {
namespace {

namespace fs = std::filesystem;

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as its tool writes
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}

TEST_F(Prepare, compressed_files_make_the_bytes_that_they_make_decompressed) {
  std::vector<std::string> documents;
  for (std::size_t i = 0; i < 400; ++i) documents.push_back(long_text(i * 7919 % 20000 + 1));
  documents.push_back(long_text(3 * block_bytes));
  documents.emplace_back("last");
  const std::string lines = read_text(write_lines("lines", documents));
  PrepareOptions options;
  options.validation = 0.2;
  // Lines, with and without a newline at their end, and texts that end before, at and behind the end of a block.
  std::vector<std::pair<std::string, std::string>> cases = {{"a.jsonl", lines}, {"b.json", lines}};
  cases.emplace_back("c.jsonl", lines.substr(0, lines.size() - 1));
  for (const std::size_t size : {std::size_t{1}, std::size_t{block_bytes - 1}, std::size_t{block_bytes},
                                 std::size_t{2 * block_bytes}, std::size_t{3 * block_bytes + 17}})
    cases.emplace_back("text" + std::to_string(size), long_text(size));
  for (const auto& [name, contents] : cases) {
    options.validation = name.starts_with("text") ? 0 : 0.2;
    prepare({write(name, contents)}, path("plain"), options);
    const std::size_t half = contents.size() / 2;
    const std::vector<std::pair<std::string, std::string>> packed = {
        {name + ".gz", gzip(contents)},
        {name + ".zst", zstd(contents)},
        {"two-" + name + ".gz", gzip(contents.substr(0, half)) + gzip(contents.substr(half))},
        {"two-" + name + ".zst", zstd(contents.substr(0, half)) + zstd(contents.substr(half))}};
    for (const auto& [file, bytes] : packed) {
      PrepareProgress done;
      prepare({write(file, bytes)}, path("packed"), options, [&](const PrepareProgress& now) { done = now; });
      EXPECT_EQ(done.bytes, bytes.size()) << file;
      for (const auto& entry : fs::directory_iterator(path("plain")))
        EXPECT_EQ(read_text(entry.path()), read_text(path("packed/") + entry.path().filename().string()))
            << file;
      fs::remove_all(path("packed"));
    }
    fs::remove_all(path("plain"));
  }
}

TEST_F(Prepare, bytes_of_compressed_files_do_not_depend_on_threads) {
  std::vector<std::string> documents;
  for (std::size_t i = 0; i < 600; ++i) documents.push_back(long_text(i * 7919 % 20000 + 1));
  const std::string input = write("in/a.jsonl.gz", gzip(read_text(write_lines("lines", documents))));
  write("in/b.txt.zst", zstd(long_text(2 * block_bytes + 5)));
  const int before = thread_count();
  for (const int threads : {1, 3}) {
    set_thread_count(threads);
    prepare({path("in")}, path("out" + std::to_string(threads)), {});
  }
  set_thread_count(before);
  for (const auto& entry : fs::directory_iterator(path("out1")))
    EXPECT_EQ(read_text(entry.path()), read_text(path("out3/") + entry.path().filename().string()));
}

TEST_F(Prepare, damaged_and_unknown_compressed_files_are_refused_by_name) {
  const auto message = [&](const std::string& name, const std::string& contents) {
    const std::string told = message_of([&] { prepare({write(name, contents)}, path("out"), all_train()); });
    EXPECT_FALSE(fs::exists(path("out")));
    return told;
  };
  const std::string text = long_text(2 * block_bytes);
  for (const bool is_gzip : {true, false}) {
    const std::string name = is_gzip ? "a.gz" : "a.zst", good = is_gzip ? gzip(text) : zstd(text);
    EXPECT_TRUE(tells(message(name, good.substr(0, good.size() / 2)), {name, "cut short", "restore it"}));
    EXPECT_TRUE(tells(message(name, good.substr(0, good.size() - 1)), {name, "cut short", "restore it"}));
    EXPECT_TRUE(tells(message(name, good.substr(0, 5)), {name, "cut short", "restore it"}));
    EXPECT_TRUE(tells(message(name, good + "rubbish"), {name, "cannot be decompressed", "restore it"}));
    std::string torn = good;
    torn.replace(good.size() / 2, 64, 64, '\xFF');
    EXPECT_TRUE(tells(message(name, torn), {name, "cannot be decompressed", "restore it"}));
    const std::string empty = is_gzip ? gzip("") : zstd("");
    EXPECT_TRUE(tells(message(name, empty), {name, "holds no text"}));
  }
  EXPECT_TRUE(tells(message("a.xz", std::string("\xFD\x37zXZ\0rest", 10)), {"a.xz", "xz -d"}));
  EXPECT_TRUE(tells(message("a.zip", "PK\3\4rest"), {"a.zip", "unzip"}));
  EXPECT_TRUE(tells(message("a.bin.gz", gzip("abcd")), {"a.bin.gz", "decompress it"}));
  EXPECT_TRUE(
      tells(message("b.jsonl.gz", gzip("{\"text\": \"a\"}\n\nbad\n")), {"b.jsonl.gz:3", "no JSON object"}));
  EXPECT_TRUE(tells(message("c.json.zst", zstd("[{\"text\": \"a\"}]")), {"c.json.zst", "a JSON array"}));
}

// One frame of Zstandard: a window of 2^bits bytes, one raw block.
std::string frame_with_window(int bits, const std::string& text) {
  std::string frame("\x28\xB5\x2F\xFD\0", 5);
  frame += static_cast<char>((bits - 10) << 3);
  const std::size_t block = text.size() << 3 | 1;
  for (const int shift : {0, 8, 16}) frame += static_cast<char>(block >> shift & 0xFF);
  return frame + text;
}

TEST_F(Prepare, a_compressed_file_that_asks_for_much_memory_is_refused_with_the_way_to_mend_it) {
  const auto prepare_window = [&](int bits) {
    return message_of(
        [&] { prepare({write("a.txt.zst", frame_with_window(bits, "text"))}, path("out"), all_train()); });
  };
  EXPECT_TRUE(tells(prepare_window(31), {"a.txt.zst", "512.00 MiB", "zstd -d --long=31"}));
  EXPECT_EQ(prepare_window(29), "no error");
}
}  // namespace
}  // namespace muster
